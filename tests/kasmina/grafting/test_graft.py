"""A graft: errors hold alpha, three in a row end it where all was well, and it never hangs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kasmina.grafting.graft import MAX_ERRORS, Graft
from kasmina.grafting.linear import LinearGrafting
from kasmina.grafting.signals import Signals
from kasmina.grafting.stability import StabilityGrafting, StabilityOptions
from kasmina.grafting.strategies import GraftingRecipe
from tests.kasmina.grafting.ramping import calm, recipes, signals

BAD = Signals(loss=math.nan)


class Broken(LinearGrafting):
    """Does a thing of its own from its fourth step on."""

    def __init__(self, what: Callable[[], Any]) -> None:
        super().__init__(10)
        self.what = what
        self.steps = 0

    def step(self, signals: Signals) -> Any:
        self.steps += 1
        return super().step(signals) if self.steps < 4 else self.what()


def raises() -> float:
    raise ZeroDivisionError("no luck")


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (raises, "ZeroDivisionError: no luck"),
        (lambda: math.nan, "its alpha is nan"),
        (lambda: -0.1, "its alpha is -0.1, which is not between 0 and 1"),
        (lambda: 1.0001, "its alpha is 1.0001"),
        (lambda: math.inf, "its alpha is inf"),
    ],
)
def test_a_broken_strategy_is_held_and_then_stopped(what: Callable[[], Any], reason: str) -> None:
    """Alpha stays at the last good value from the first error on; the third ends it in words."""
    graft = Graft(Broken(what))
    courses = []
    for _ in range(8):
        graft.step(calm())
        courses.append((graft.alpha, bool(graft.fault)))
    assert courses[:3] == [(0.1, False), (0.2, False), (0.3, False)]
    assert courses[3:] == [(0.3, False)] * 2 + [(0.3, True)] * 3
    assert graft.num_errors == MAX_ERRORS
    assert graft.fault.startswith("grafting stopped at alpha 0.3: 3 errors in a row, the last: ")
    assert reason in graft.fault


@pytest.mark.parametrize("name", ["loss", "weight_drift", "gradient_norm"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_signal_that_is_not_finite_is_an_error(name: str, value: float) -> None:
    """It never reaches the strategy; two in a row only pause."""
    graft = Graft(GraftingRecipe("adaptive").build(4))
    bad = Signals(**{name: value})
    for signal in (bad, bad, Signals(), bad, bad, Signals(), Signals(), Signals()):
        graft.step(signal)
    assert (graft.alpha, graft.fault) == (1.0, "")
    other = Graft(GraftingRecipe("adaptive").build(4))
    for signal in (Signals(), bad, bad, bad, Signals()):
        other.step(signal)
    assert other.alpha == 0.25
    assert f"the {name.replace('_', ' ')} is {value:g}" in other.fault


def test_a_strategy_that_knows_a_stable_alpha_goes_back_to_it() -> None:
    """After errors, and when it gives up itself."""
    options = StabilityOptions(check_steps=5, max_retreats=0)
    graft = Graft(StabilityGrafting(100, options))
    for signal in [calm()] * 13 + [BAD] * 3:
        graft.step(signal)
    assert graft.alpha == 0.09
    graft = Graft(StabilityGrafting(100, options))
    for signal in [calm()] * 10 + [Signals(loss=loss) for loss in (0.0, 2.0) * 10]:
        graft.step(signal)
    assert graft.alpha == 0.09
    assert "it was unstable 1 times" in graft.fault
    assert graft.num_errors == 0


def test_a_strategy_that_never_moves_is_stopped() -> None:
    """There is no endless pause, whatever a strategy does."""
    graft = Graft(Broken(lambda: 0.3))
    for _ in range(graft.max_steps):
        assert not graft.fault
        graft.step(calm())
    assert graft.fault == "grafting stopped at alpha 0.3: alpha has not reached 1 in 30 steps"


@settings(max_examples=200)
@given(recipes, st.integers(1, 20), st.lists(signals | st.just(BAD), min_size=1, max_size=7))
def test_it_ends_whatever_happens(
    recipe: GraftingRecipe, num_steps: int, course: list[Signals]
) -> None:
    """At exactly 1 without a fault, or with one at an alpha that stays; within its bound."""
    graft = Graft(recipe.build(num_steps))
    for step in range(graft.max_steps):
        graft.step(course[step % len(course)])
        assert 0.0 <= graft.alpha <= 1.0
    assert (graft.alpha == 1.0) != bool(graft.fault)
    assert graft.asks_for == frozenset()
    end = graft.alpha, graft.fault
    graft.step(calm())
    assert (graft.alpha, graft.fault) == end


@settings(max_examples=100)
@given(
    recipes,
    st.lists(signals | st.just(BAD), min_size=1, max_size=40),
    st.integers(0, 40),
)
def test_a_resumed_graft_has_the_same_bits(
    recipe: GraftingRecipe, course: list[Signals], saved_at: int
) -> None:
    """Errors and ends are remembered too."""
    whole, first, second = (Graft(recipe.build(12)) for _ in range(3))
    for signal in course[:saved_at]:
        first.step(signal)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for signal in course[saved_at:]:
        second.step(signal)
    for signal in course:
        whole.step(signal)
    assert second.state_dict() == whole.state_dict()
