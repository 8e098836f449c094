"""Costs: parameters and FLOPs are those of the built module, counted for nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from kasmina import count_flops
from kasmina.blueprints import Blueprint, catalogue
from kasmina.sites.shape import SiteShape
from leyline import BlueprintError
from tests.kasmina.blueprints.shapes import every_blueprint, fitting
from tests.kasmina.growing import rng_streams

FLAT = SiteShape((3, 12), -1)


@every_blueprint
def test_it_is_the_cost_of_the_built_module(blueprint: Blueprint) -> None:
    """Both numbers, at every shape, for one example; no global random stream moves."""
    for shape in fitting(blueprint):
        streams = rng_streams()
        cost = blueprint.cost(shape)
        body = blueprint.build(shape, 1)
        assert rng_streams() == streams
        assert cost.num_parameters == sum(p.numel() for p in body.parameters())
        batch = torch.randn(*shape)
        with sdpa_kernel(SDPBackend.MATH):  # torch does not count its fused kernel for CPUs
            whole = count_flops(lambda body=body, batch=batch: body(batch))
        assert (shape, cost.num_flops * shape[shape.batch_axis]) == (shape, whole)


@pytest.mark.parametrize("shape", [(5, 16, 8, 8), (2, 16, 8, 8)])
def test_flops_by_hand(shape: tuple[int, ...]) -> None:
    """A product of m x k and k x n takes 2 m k n, whatever the batch of the dry run was."""
    pixels = 64
    by_hand = {
        "low_rank": 2 * pixels * (16 * 2 + 2 * 16),
        "conv": 2 * pixels * (16 * 16 * 9 + 16 * 16),
        "depthwise_conv": 2 * pixels * (16 * 9 + 16 * 16),
        "attention": 2 * pixels * (16 * 48 + 2 * pixels * 16 + 16 * 16),
        "norm": 0,
    }
    site = SiteShape(shape, 1)
    assert {name: catalogue[name].cost(site).num_flops for name in by_hand} == by_hand


def test_large_sites_take_no_memory() -> None:
    """A blueprint of terabytes is counted all the same."""
    cost = catalogue["widen"].cost(SiteShape((8, 4, 2**20), -1))
    assert cost.num_parameters == 8 * 2**40 + 7 * 2**20
    assert math.isclose(cost.num_flops, 4 * 16 * 2**40)


class Reads(nn.Linear):
    """Works on real tensors only."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if float(x.abs().max()) >= 0 else x


def test_a_factory_or_forward_that_needs_real_tensors_is_counted_too() -> None:
    """What reads its tensors cannot run without memory; the counts are right, for nothing."""

    def reads(shape: SiteShape) -> nn.Module:
        body = nn.Linear(shape.channels, shape.channels)
        assert float(body.weight.detach().abs().sum()) >= 0
        return body

    for factory in (reads, lambda shape: Reads(shape.channels, shape.channels)):
        streams = rng_streams()
        cost = Blueprint("reads", factory).cost(FLAT)
        assert rng_streams() == streams
        assert (cost.num_parameters, cost.num_flops) == (156, 288)


def test_a_forward_that_fails_costs_no_flops() -> None:
    """Its parameters are counted; why it fails is found at germination, not here."""
    cost = Blueprint("misfit", lambda shape: nn.Linear(shape.channels + 1, 1)).cost(FLAT)
    assert (cost.num_parameters, cost.num_flops) == (14, 0)


def test_a_factory_that_fails_is_named() -> None:
    """The error names blueprint, shape and cause."""
    broken = Blueprint("broken", lambda shape: nn.Linear(shape.channels, -1))
    with pytest.raises(BlueprintError, match=r"'broken'.*\(3, 12\).*accepts="):
        broken.cost(FLAT)
