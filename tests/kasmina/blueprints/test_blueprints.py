"""Blueprints: zero at birth, alive in their gradient, of any batch size, built from own numbers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

import kasmina
from kasmina.blueprints import Blueprint, catalogue
from kasmina.blueprints.built_in import BUILT_IN
from kasmina.sites.shape import SiteShape
from leyline import BlueprintError
from tests.kasmina.growing import rng_streams, state_bits

SHAPES = [
    SiteShape((3, 12, 7), 1),
    SiteShape((3, 12, 6, 5), 1),
    SiteShape((3, 12, 4, 3, 2), 1),
    SiteShape((3, 12), -1),
    SiteShape((3, 7, 12), -1),
    SiteShape((3, 5, 7, 12), -1),
    SiteShape((3, 2), -1),
    SiteShape((3, 1, 6, 5), 1),
    SiteShape((2, 4, 2, 2, 2, 2), 1),
]
FITTING = [(b, s) for b in BUILT_IN for s in SHAPES if b.accepts(s)]
every_fit = pytest.mark.parametrize(
    ("blueprint", "shape"), FITTING, ids=[f"{b.name}-{s}-{s.channel_axis}" for b, s in FITTING]
)


def test_which_shapes_are_accepted() -> None:
    """Every shape has a blueprint; convolutions want one to three spatial axes."""
    accepted = {str(s): [b.name for b in BUILT_IN if b.accepts(s)] for s in SHAPES}
    everything = [b.name for b in BUILT_IN]
    assert accepted[str(SHAPES[0])] == accepted[str(SHAPES[2])] == everything
    assert accepted[str(SHAPES[4])] == ["low_rank", "bottleneck_mlp", "norm"]
    assert accepted[str(SHAPES[8])] == ["norm"]


@every_fit
def test_a_built_in_is_zero_at_birth_and_can_learn(blueprint: Blueprint, shape: SiteShape) -> None:
    """Output exactly 0, some gradient not 0, same shape and dtype for any batch size."""
    body = blueprint.build(shape, rng_seed=5)
    for batch in (shape[0], 5):
        x = torch.randn(batch, *shape[1:])
        y = body(x)
        assert y.shape == x.shape
        assert y.dtype is x.dtype
        assert torch.equal(y, torch.zeros_like(y))
    (body(x) * torch.randn_like(x)).sum().backward()
    assert any(torch.count_nonzero(p.grad) for p in body.parameters())


@every_fit
def test_its_size_is_counted_right_and_for_nothing(blueprint: Blueprint, shape: SiteShape) -> None:
    """num_parameters is the built module's count; neither moves a global random stream."""
    streams = rng_streams()
    counted = blueprint.num_parameters(shape)
    assert counted == sum(p.numel() for p in blueprint.build(shape, 1).parameters())
    assert rng_streams() == streams


@every_fit
def test_weights_are_a_function_of_the_rng_seed(blueprint: Blueprint, shape: SiteShape) -> None:
    """The same number gives the same bits whatever was drawn before; another gives others."""
    first = state_bits(blueprint.build(shape, 11).state_dict())
    torch.rand(3)
    assert state_bits(blueprint.build(shape, 11).state_dict()) == first
    if blueprint.name != "norm":
        assert state_bits(blueprint.build(shape, 12).state_dict()) != first


@pytest.fixture
def forget_own() -> Iterator[None]:
    """Leave the catalogue as it was."""
    held = dict(catalogue._blueprints)
    yield
    catalogue._blueprints.clear()
    catalogue._blueprints.update(held)


def scale(shape: SiteShape) -> nn.Module:
    return nn.Linear(shape.channels, shape.channels)


@pytest.mark.usefixtures("forget_own")
def test_a_blueprint_of_ones_own() -> None:
    """It is built, measured and asked whether it fits like the others, and may be replaced."""
    kasmina.register("mine", scale, accepts=lambda shape: not shape.channels_first)
    assert list(catalogue.by_name)[-1] == "mine"
    assert catalogue["mine"].num_parameters(SHAPES[3]) == 156
    assert not catalogue["mine"].accepts(SHAPES[0])
    kasmina.register("mine", scale)
    assert catalogue["mine"].accepts(SHAPES[0])


@pytest.mark.usefixtures("forget_own")
def test_a_factory_that_needs_real_tensors_is_counted_too() -> None:
    """Initialisers that read their tensors cannot run without memory; the count is still right."""

    def reads(shape: SiteShape) -> nn.Module:
        body = scale(shape)
        assert float(body.weight.detach().abs().sum()) >= 0
        return body

    kasmina.register("reads", reads)
    assert catalogue["reads"].num_parameters(SHAPES[3]) == 156


@pytest.mark.usefixtures("forget_own")
def test_a_factory_that_fails_is_named() -> None:
    """The error names blueprint, shape and cause."""
    kasmina.register("broken", lambda shape: nn.Linear(shape.channels, -1))
    with pytest.raises(BlueprintError, match=r"'broken'.*\(3, 12\).*accepts="):
        catalogue["broken"].num_parameters(SHAPES[3])


@pytest.mark.parametrize(
    ("name", "reason"), [("conv", "built in"), ("two words", "not allowed"), ("", "not allowed")]
)
def test_a_name_that_may_not_be_registered(name: str, reason: str) -> None:
    """Built-in and malformed names are refused and nothing is registered."""
    before = catalogue.by_name
    with pytest.raises(BlueprintError, match=reason):
        kasmina.register(name, scale)
    assert catalogue.by_name == before


def test_an_unknown_name_lists_the_known_ones() -> None:
    """The error names what was asked, what there is and how to add one."""
    with pytest.raises(BlueprintError, match=r"'convv'.*low_rank, .*conv.*kasmina\.register"):
        catalogue["convv"]
