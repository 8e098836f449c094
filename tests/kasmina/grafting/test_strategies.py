"""What every strategy promises: exact ends, small steps, a bound, and the same bits resumed."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kasmina.grafting.linear_ramps import LinearRamps
from kasmina.grafting.signals import NOTHING_KNOWN, Signals
from kasmina.grafting.strategies import STRATEGIES, GraftingRecipe
from leyline import ConfigError
from tests.kasmina.grafting.ramping import OPTIONS, alphas, courses, recipes, signals

ROUNDING = 1e-12


@settings(max_examples=300)
@given(recipes, st.integers(-2, 60), courses)
def test_it_ends_within_its_bound_by_small_steps(
    recipe: GraftingRecipe, num_steps: int, course: list[Signals]
) -> None:
    """From exactly 0, never by more than max_rise or max_fall, to exactly 1 or given up."""
    strategy = recipe.build(num_steps)
    assert strategy.alpha == 0.0
    before = 0.0
    for signal in itertools.islice(itertools.cycle(course), strategy.max_steps):
        alpha = strategy.step(signal)
        assert 0.0 <= alpha <= 1.0
        assert -strategy.max_fall - ROUNDING <= alpha - before <= strategy.max_rise + ROUNDING
        assert strategy.stable_alpha <= alpha or strategy.stable_alpha <= before
        before = alpha
        if alpha == 1.0 or strategy.aborted:
            break
    assert before == 1.0 or strategy.aborted
    assert before == strategy.alpha


@settings(max_examples=300)
@given(recipes, st.integers(1, 30), st.lists(signals, min_size=2, max_size=60), st.data())
def test_a_resumed_ramp_has_the_same_bits(
    recipe: GraftingRecipe, num_steps: int, course: list[Signals], data: st.DataObject
) -> None:
    """Saved after any step as plain values, gone on with, and loaded afresh, it goes on alike."""
    saved_at = data.draw(st.integers(0, len(course)))
    whole, first = recipe.build(num_steps), recipe.build(num_steps)
    expected = alphas(whole, course)
    begun = alphas(first, course[:saved_at])
    state = first.state_dict()
    alphas(first, course[saved_at:])
    second = recipe.build(num_steps)
    second.load_state_dict(json.loads(json.dumps(state)))
    assert begun + alphas(second, course[saved_at:]) == expected
    assert second.state_dict() == whole.state_dict()


@settings(max_examples=100)
@given(recipes, st.integers(1, 200))
def test_what_is_not_known_disturbs_nothing(recipe: GraftingRecipe, num_steps: int) -> None:
    """Without any measurement every strategy is the linear ramp, and that the one of columns."""
    strategy, columns = recipe.build(num_steps), LinearRamps()
    alpha = np.zeros(1, dtype=np.float32)
    columns.begin("a/0", 0, num_steps)
    for step in range(1, num_steps + 1):
        columns.step(alpha)
        assert strategy.step(NOTHING_KNOWN) == step / num_steps
        assert np.float32(strategy.alpha) == alpha[0]
    assert strategy.alpha == alpha[0] == 1.0


@pytest.mark.parametrize("name", [n for n in STRATEGIES if n != "stability"])
@settings(max_examples=50)
@given(course=courses)
def test_only_stability_goes_back(name: str, course: list[Signals]) -> None:
    """All others promise to be monotone, and are."""
    strategy = GraftingRecipe(name, OPTIONS[name]).build(40)
    assert strategy.max_fall == 0.0
    risen = alphas(strategy, itertools.islice(itertools.cycle(course), 100))
    assert risen == sorted(risen)


def test_the_numbers_of_the_strategies() -> None:
    """The state table keeps them, so they may not change."""
    names = ("linear", "drift_controlled", "momentum", "adaptive", "stability")
    assert [GraftingRecipe(name).number for name in names] == [0, 1, 2, 3, 4]
    assert tuple(STRATEGIES) == names


@pytest.mark.parametrize(
    ("strategy", "options", "reason"),
    [
        ("linaer", {}, "'grafting' is 'linaer'; it must be one of linear, drift_controlled"),
        ("linear", {"speed": 1}, "'linear' grafting has no option 'speed'; it takes none"),
        ("momentum", {"velocity": 1}, "no option 'velocity'; it takes momentum, acceleration"),
        ("momentum", {"max_velocity": 0.5}, "'max_velocity' .* is 0.5; .* from 1 to 100"),
        ("momentum", {"acceleration": float("inf")}, "is inf; it must be a number of at least 0"),
        ("stability", {"check_steps": 2.5}, "is 2.5; it must be a whole number of at least 2"),
        ("drift_controlled", {"drift_limit": float("nan")}, "is nan"),
    ],
)
def test_a_wrong_recipe_says_why(strategy: str, options: dict[str, float], reason: str) -> None:
    """The error names strategy, option, value and what is allowed."""
    with pytest.raises(ConfigError, match=reason):
        GraftingRecipe(strategy, options)


def test_whole_floats_count() -> None:
    """A config file may write 10.0 where a count is meant."""
    strategy = GraftingRecipe("stability", {"check_steps": 10.0}).build(5)
    assert strategy.options.check_steps == 10
    assert isinstance(strategy.options.check_steps, int)
