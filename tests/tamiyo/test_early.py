"""Early calls: a plateau or a host that underfits may call the first race before its time."""

from __future__ import annotations

import math

import pytest

from tamiyo import HeuristicPolicy, HeuristicRules, State
from tamiyo.early import EarlyRules, Trend, why_early
from tests.tamiyo.boundaries import state

PLATEAU = EarlyRules(monitor_mode="min", plateau_epochs=2, plateau_improvement=0.01)


def at(held_out: float, trained: float = 0.5, *, epoch: int = 3) -> State:
    return state(epoch=epoch, metrics={"val_loss": held_out, "train_loss": trained})


def test_off_by_default() -> None:
    """Neither a plateau nor a gap calls a race unless it is asked for."""
    assert why_early(at(0.5), [0.5] * 9, EarlyRules(monitor_mode="min")) == ""


@pytest.mark.parametrize(
    ("mode", "trend", "calls"),
    [
        ("min", [1.0, 0.995, 0.992], True),
        ("min", [1.0, 0.995, 0.989], False),
        ("min", [1.0, 1.2, 1.5], True),
        ("max", [1.0, 1.2, 1.5], False),
        ("max", [1.0, 0.995, 0.9], True),
        ("min", [1.0, 1.0], False),
        ("auto", [1.0, 1.0, 1.0], False),
    ],
    ids=["flat", "falls", "worse", "rises", "falls, rising is better", "too short", "unknown"],
)
def test_plateau(mode: str, trend: list[float], calls: bool) -> None:
    """A metric that has improved by less than a share of itself over the epochs asked for is a
    plateau; a shorter course, or one of which nobody can tell the better end, is none.
    """
    rules = EarlyRules(monitor_mode=mode, plateau_epochs=2, plateau_improvement=0.01)  # type: ignore[arg-type] # one of three
    assert bool(why_early(at(0.5), trend, rules)) is calls


def test_underfit() -> None:
    """A held-out loss that is hardly worse than the training loss calls a race, a gap does not,
    and without both numbers nothing does.
    """
    rules = EarlyRules(monitor_mode="min", underfit_gap=0.1)
    assert "the host underfits" in why_early(at(0.54), (), rules)
    assert why_early(at(0.56), (), rules) == ""
    assert why_early(at(math.nan), (), rules) == ""
    assert why_early(state(metrics={"val_loss": 0.5}), (), rules) == ""


def test_the_trend_keeps_what_was_measured() -> None:
    """It keeps as many values as the plateau needs; what was not measured, or not anew, is none."""
    trend = Trend()
    for value in (3.0, 2.0, math.nan, 1.0, 1.0, math.inf, 0.5):
        trend.note(at(value), PLATEAU)
    assert trend.values == [2.0, 1.0, 0.5]
    idle = Trend()
    idle.note(at(1.0), EarlyRules())
    assert idle.values == []


def test_a_plateau_calls_the_first_race_alone() -> None:
    """The policy remembers the metric until its first race, across a save, and not after."""
    rules = HeuristicRules(monitor_mode="min", plateau_epochs=2)
    policy = HeuristicPolicy(rules)
    for epoch, value in enumerate((1.0, 0.999), start=1):
        assert not policy.decide(at(value, epoch=epoch)).commands
    resumed = HeuristicPolicy(rules)
    resumed.load_state_dict(policy.state_dict())
    decision = resumed.decide(at(0.998, epoch=3))
    assert decision.commands
    assert decision.cause.startswith(
        "val_loss improved by 0.20% in 2 epochs, less than 1.00%; race"
    )
    kept = resumed.state_dict()["trend"]
    assert resumed.decide(at(0.9, epoch=4)).cause == "warming up until epoch 10"
    assert resumed.state_dict()["trend"] == kept
    assert not HeuristicPolicy().decide(at(0.998, epoch=3)).commands
