"""Blueprints of one's own: registered by a call or a decorator, named when they are wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

import kasmina
from kasmina.blueprints import Risk, catalogue
from kasmina.sites.shape import SiteShape
from leyline import BlueprintError

FLAT, IMAGE = SiteShape((3, 12), -1), SiteShape((3, 12, 7), 1)


@pytest.fixture(autouse=True)
def forget_own() -> Iterator[None]:
    """Leave the catalogue as it was."""
    held = dict(catalogue.by_name)
    yield
    catalogue._blueprints.clear()
    catalogue._blueprints.update(held)


def scale(shape: SiteShape) -> nn.Module:
    return nn.Linear(shape.channels, shape.channels)


def test_a_blueprint_of_ones_own() -> None:
    """It is built, measured and asked whether it fits like the others, and may be replaced."""
    kasmina.register("mine", scale, accepts=lambda shape: not shape.channels_first)
    assert list(catalogue.by_name)[-1] == "mine"
    assert catalogue["mine"].cost(FLAT).num_parameters == 156
    assert not catalogue["mine"].accepts(IMAGE)
    assert catalogue["mine"].risk is Risk.HIGH
    kasmina.register("mine", scale, risk=Risk.LOW)
    assert catalogue["mine"].accepts(IMAGE)
    assert catalogue["mine"].risk is Risk.LOW


def test_a_decorated_factory() -> None:
    """The decorator registers it with its options and gives the very function back."""

    def factory(shape: SiteShape) -> nn.Module:
        return scale(shape)

    options = {"accepts": lambda shape: shape.channels_first, "risk": Risk.MEDIUM}
    assert kasmina.blueprint("mine", **options)(factory) is factory
    mine = catalogue["mine"]
    assert (mine.factory, mine.risk, mine.accepts(FLAT)) == (factory, Risk.MEDIUM, False)
    kasmina.blueprint("mine")(factory)
    assert (catalogue["mine"].risk, catalogue["mine"].accepts(FLAT)) == (Risk.HIGH, True)
    with pytest.raises(BlueprintError, match="built in"):
        kasmina.blueprint("conv")(factory)


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


def test_its_weights_do_not_depend_on_what_was_drawn_before() -> None:
    """A factory draws from the seed's own stream and leaves the global one where it was."""
    kasmina.register("mine", scale)
    state = torch.get_rng_state()
    first = catalogue["mine"].build(FLAT, 4)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(2)
    assert torch.equal(catalogue["mine"].build(FLAT, 4).weight, first.weight)
