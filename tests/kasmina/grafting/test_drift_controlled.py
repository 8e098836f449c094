"""Drift-controlled grafting: holds above the limit, for as long as it says, not for ever."""

from __future__ import annotations

from kasmina.grafting.drift_controlled import DriftControlledGrafting, DriftOptions
from kasmina.grafting.signals import Signals
from tests.kasmina.grafting.ramping import alphas

LIMITS = DriftOptions(drift_limit=0.01, pause_steps=4, smoothing=1.0, max_stretch=3.0)


def drifts(*values: float) -> list[Signals]:
    return [Signals(weight_drift=value) for value in values]


def test_a_spike_holds_alpha_for_the_pause() -> None:
    """Exactly `pause_steps` steps, counted from the spike; then alpha goes on where it was."""
    strategy = DriftControlledGrafting(10, LIMITS)
    course = drifts(0.001, 0.009, 0.02, *[0.001] * 11)
    tenths = [round(10 * alpha) for alpha in alphas(strategy, course)]
    assert tenths == [1, 2, 2, 2, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10]


def test_a_hold_is_not_prolonged_from_within() -> None:
    """Drift is looked at again when the hold is over, and holds anew if it is still there."""
    course = drifts(0.02, 0.02, 0.02, 0.001, 0.001, 0.02, 0.001, 0.001, 0.001, 0.001)
    tenths = [round(10 * alpha) for alpha in alphas(DriftControlledGrafting(10, LIMITS), course)]
    assert tenths == [0, 0, 0, 0, 1, 1, 1, 1, 1, 2]


def test_the_limit_itself_is_no_drift() -> None:
    """Only what is above it holds."""
    strategy = DriftControlledGrafting(4, LIMITS)
    assert alphas(strategy, drifts(0.01, 0.01)) == [0.25, 0.5]


def test_lasting_drift_delays_by_the_stretch_and_no_more() -> None:
    """A ramp of 10 steps under a max_stretch of 3 takes 30 steps, holds first."""
    strategy = DriftControlledGrafting(10, LIMITS)
    course = alphas(strategy, drifts(*[1.0] * 30))
    assert course[:20] == [0.0] * 20
    assert course[19:] == [n / 10 for n in range(11)]
    assert strategy.max_steps == 30


def test_the_average_is_what_counts() -> None:
    """With a long average one spike of twice the limit does not hold, ten do."""
    slow = DriftOptions(drift_limit=0.01, smoothing=0.1)
    strategy = DriftControlledGrafting(100, slow)
    alphas(strategy, drifts(0.005, 0.02))
    assert strategy.position == 2
    alphas(strategy, drifts(*[0.02] * 10))
    assert strategy.position < 12
