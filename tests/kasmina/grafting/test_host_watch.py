"""The host watch: how far the host's own weights moved, seeds left out, to the bit on resuming."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from kasmina.grafting.host_watch import HostWatch
from tests.kasmina.growing import bits, grow, rng_streams

BOTH = frozenset({"weight_drift", "gradient_norm"})


def move(module: nn.Module, factor: float) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(factor)


def test_drift_is_relative_to_the_weights_of_the_step_before() -> None:
    """A step of 1 % is 0.01 whatever the scale, and nothing is summed up."""
    module = nn.Linear(6, 5)
    watch = HostWatch(module)
    for factor in (1.01, 1.0, 0.97):
        move(module, factor)
        drift = watch.measure(module, BOTH)["weight_drift"]
        assert drift == pytest.approx(abs(factor - 1), abs=1e-6)


@pytest.mark.parametrize("size", [63, 64, 65, 640])
def test_a_large_layer_is_sampled(size: int) -> None:
    """Of random moves the estimate is within a few percent, from at most 4,096 weights."""
    module = nn.Linear(size, size)
    watch = HostWatch(module)
    before = nn.utils.parameters_to_vector(module.parameters()).detach()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1e-3 * torch.randn_like(parameter))
    after = nn.utils.parameters_to_vector(module.parameters()).detach()
    exact = float((after - before).norm() / before.norm())
    assert watch.measure(module, BOTH)["weight_drift"] == pytest.approx(exact, rel=0.05)
    assert watch.state_dict()["before"].numel() <= 4097


def test_seeds_on_the_module_do_not_count() -> None:
    """A seed that learns is no drift of the host, nor is its gradient the host's."""
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 2))
    x = torch.randn(4, 6)
    seed = grow(model, "0", x, alpha=0.5)
    watch = HostWatch(model[0])
    move(seed, 2.0)
    model(x).sum().backward()
    own = [p.grad for n, p in model[0].named_parameters() if "esper" not in n]
    measured = watch.measure(model[0], BOTH)
    assert measured["weight_drift"] == 0.0
    norm = math.sqrt(sum(float(g.square().sum()) for g in own))
    assert measured["gradient_norm"] == pytest.approx(norm, rel=1e-5)


def test_what_is_not_there_is_not_known() -> None:
    """No weights, no gradients or not asked for: no number, and never an error."""
    assert HostWatch(nn.ReLU()).measure(nn.ReLU(), BOTH) == {}
    module = nn.Linear(2, 2)
    watch = HostWatch(module)
    assert set(watch.measure(module, BOTH)) == {"weight_drift"}
    assert watch.measure(module, frozenset({"gradient_norm"})) == {}
    assert HostWatch(None).measure(module, BOTH) == {}


def test_half_precision_gradients_do_not_overflow() -> None:
    """Norms are taken in single precision."""
    module = nn.Linear(100, 100).half()
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, 1000.0)
    measured = HostWatch(module).measure(module, BOTH)
    assert measured["gradient_norm"] == pytest.approx(1000.0 * math.sqrt(10_100), rel=1e-3)


def test_it_goes_on_from_a_saved_state_and_leaves_everything_alone() -> None:
    """The same bits after a save; weights, gradients and random streams untouched."""
    module = nn.Linear(6, 5)
    watch, streams = HostWatch(module), rng_streams()
    before = bits(module.weight)
    watch.measure(module, BOTH)
    assert bits(module.weight) == before
    resumed = HostWatch(None)
    resumed.load_state_dict(watch.state_dict())
    move(module, 1.03)
    assert resumed.measure(module, BOTH) == watch.measure(module, BOTH)
    assert rng_streams() == streams


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_numbers_come_one_step_late() -> None:
    """Nothing at the first step, then always the step before's; also through a save."""
    module = nn.Linear(6, 5).cuda()
    watch = HostWatch(module)
    drifts = []
    for factor in (1.01, 1.02, 1.04):
        move(module, factor)
        drifts.append(watch.measure(module, BOTH).get("weight_drift"))
        resumed = HostWatch(None)
        resumed.load_state_dict(watch.state_dict())
        watch = resumed
    assert drifts[0] is None
    assert drifts[1:] == [pytest.approx(0.01, abs=1e-5), pytest.approx(0.02, abs=1e-5)]
