"""The built-in blueprints: zero at birth, alive, shape-keeping, without state and chance."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from kasmina.blueprints import Blueprint, Risk, catalogue
from kasmina.blueprints.built_in import BUILT_IN
from kasmina.sites.shape import SiteShape
from tests.kasmina.blueprints.shapes import CAUSAL, SHAPES, every_blueprint, fitting
from tests.kasmina.growing import bits, rng_streams, state_bits, wake

PER_POSITION = ["low_rank", "bottleneck_mlp", "gated_mlp", "widen"]
LOW = {*PER_POSITION, "pointwise_conv", "norm"}


def accepted(shape: SiteShape) -> list[str]:
    return [blueprint.name for blueprint in BUILT_IN if blueprint.accepts(shape)]


def test_which_shapes_are_accepted() -> None:
    """Convolutions want neighbours in reach, attention positions, a norm two values."""
    everything = [blueprint.name for blueprint in BUILT_IN]
    assert accepted(SHAPES[0]) == accepted(SHAPES[1]) == accepted(SHAPES[2]) == everything
    assert accepted(SHAPES[3]) == accepted(SHAPES[5]) == [*PER_POSITION, "norm"]
    assert accepted(SHAPES[4]) == accepted(SHAPES[6]) == [*PER_POSITION, "attention", "norm"]
    assert accepted(SHAPES[7]) == [*PER_POSITION, "norm"]
    assert accepted(SHAPES[8]) == PER_POSITION
    assert accepted(SHAPES[9]) == [name for name in everything if name != "attention"]
    near = ["depthwise_conv", "conv", "conv_two_layers", "squeeze_excite"]
    assert accepted(SHAPES[10]) == [*PER_POSITION, "pointwise_conv", *near, "norm"]
    assert accepted(SHAPES[11]) == [*PER_POSITION, "pointwise_conv", "norm"]
    assert accepted(SHAPES[13]) == ["norm"]
    assert accepted(SiteShape((3, 8, 17, 16), 1)) == [n for n in everything if n != "attention"]


def test_which_causal_shapes_are_accepted() -> None:
    """Nothing that pools over positions, and over images nothing that mixes any."""
    everything = [blueprint.name for blueprint in BUILT_IN]
    assert accepted(CAUSAL[0]) == [n for n in everything if n != "squeeze_excite"]
    assert accepted(CAUSAL[2]) == accepted(CAUSAL[3]) == [*PER_POSITION, "attention", "norm"]
    assert accepted(CAUSAL[4]) == [*PER_POSITION, "pointwise_conv", "norm"]


def test_risk() -> None:
    """What maps each position by itself is LOW, what mixes positions MEDIUM, nothing HIGH."""
    assert {b.name for b in BUILT_IN if b.risk is Risk.LOW} == LOW
    assert all(b.risk is Risk.MEDIUM for b in BUILT_IN if b.name not in LOW)
    assert all(catalogue[blueprint.name] is blueprint for blueprint in BUILT_IN)


def resized(shape: SiteShape, batch: int, longer: int) -> list[int]:
    """Another batch size, and every axis but it and the channels longer."""
    channel_axis = shape.channel_axis % len(shape)
    return [
        batch if axis == shape.batch_axis else size + longer * (axis != channel_axis)
        for axis, size in enumerate(shape)
    ]


@every_blueprint
def test_zero_at_birth_at_any_size(blueprint: Blueprint) -> None:
    """Exactly 0 of the input's shape and dtype, for other batches and other spatial sizes too."""
    for shape in fitting(blueprint):
        body = blueprint.build(shape, rng_seed=5)
        for batch, longer, dtype in (
            (3, 0, torch.float32),
            (1, 0, torch.bfloat16),
            (5, 3, torch.float64),
        ):
            x = torch.randn(resized(shape, batch, longer), dtype=dtype)
            y = body.to(dtype)(x)
            assert (y.shape, y.dtype) == (x.shape, dtype)
            assert torch.equal(y, torch.zeros_like(y)), shape


def dead_after_a_step(blueprint: Blueprint, shape: SiteShape, rng_seed: int) -> list[str]:
    """Parameters whose gradient is 0 after one step of plain gradient descent."""
    body = blueprint.build(shape, rng_seed)
    x, wanted = torch.randn(2, *shape).unbind()
    optimizer = torch.optim.SGD(body.parameters(), lr=0.5)
    (body(x) * wanted).sum().backward()
    assert any(torch.count_nonzero(p.grad) for p in body.parameters()), shape
    optimizer.step()
    optimizer.zero_grad()
    (body(x) * wanted).sum().backward()
    return [name for name, p in body.named_parameters() if not torch.count_nonzero(p.grad)]


@every_blueprint
def test_it_can_start(blueprint: Blueprint) -> None:
    """Some gradient is not 0 at birth, and none is after one step of plain gradient descent."""
    for shape in fitting(blueprint):
        assert (shape, dead_after_a_step(blueprint, shape, 5)) == (shape, [])


@pytest.mark.parametrize("name", ["conv_two_layers", "pointwise_conv"])
def test_a_single_channel_can_start_whatever_was_drawn(name: str) -> None:
    """Units that are off for every input would be off for good: there are none, in 100 draws."""
    blueprint, shape = catalogue[name], SHAPES[9]
    assert [dead_after_a_step(blueprint, shape, n) for n in range(100)] == [[]] * 100


@every_blueprint
def test_it_has_no_state_and_no_chance(blueprint: Blueprint) -> None:
    """The same bits in train and eval, with and without gradients, moving no random stream."""
    for shape in fitting(blueprint):
        body = wake(blueprint.build(shape, rng_seed=5))
        assert list(body.buffers()) == []
        x = torch.randn(*shape)
        streams, before = rng_streams(), bits(x)
        outputs = set()
        for training in (True, False):
            for grad in (True, False):
                with torch.set_grad_enabled(grad):
                    outputs.add(bits(body.train(training)(x)))
        assert (shape, len(outputs)) == (shape, 1)
        assert rng_streams() == streams
        assert bits(x) == before


@every_blueprint
def test_weights_are_a_function_of_the_rng_seed(blueprint: Blueprint) -> None:
    """The same number gives the same bits whatever was drawn before; another gives others."""
    for shape in fitting(blueprint):
        first = state_bits(blueprint.build(shape, 11).state_dict())
        torch.rand(3)
        assert state_bits(blueprint.build(shape, 11).state_dict()) == first
        differs = state_bits(blueprint.build(shape, 12).state_dict()) != first
        assert differs is (blueprint.name != "norm")


@every_blueprint
def test_all_of_it_is_torch_s_own(blueprint: Blueprint) -> None:
    """No class of Esper's, so that an export runs without it; no BatchNorm; a copy is equal."""
    for shape in fitting(blueprint):
        body = wake(blueprint.build(shape, rng_seed=5))
        kinds = {type(module) for module in body.modules()}
        assert all(kind.__module__.startswith("torch.") for kind in kinds), shape
        assert not any(issubclass(kind, nn.modules.batchnorm._BatchNorm) for kind in kinds)
        x = torch.randn(*shape)
        assert bits(copy.deepcopy(body)(x)) == bits(body(x))


@every_blueprint
def test_causal_shapes_see_nothing_later(blueprint: Blueprint) -> None:
    """At a causal shape, to change later positions changes no bit of the output before them."""
    for shape in (shape for shape in CAUSAL if blueprint.accepts(shape)):
        body = wake(blueprint.build(shape, rng_seed=5))
        axis = 2 if shape.channels_first else 1 - shape.batch_axis
        x = torch.randn(*shape)
        for first in range(1, shape[axis]):
            other = x.clone()
            later = other.narrow(axis, first, shape[axis] - first)
            later.copy_(1e3 * torch.randn_like(later))
            before, after = (body(value).narrow(axis, 0, first) for value in (x, other))
            assert bits(before) == bits(after), (shape, first)
