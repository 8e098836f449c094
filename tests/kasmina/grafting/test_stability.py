"""Stability grafting: checks, holds, goes back to the last good alpha, and gives up in the end."""

from __future__ import annotations

from kasmina.grafting.signals import Signals
from kasmina.grafting.stability import StabilityGrafting, StabilityOptions
from tests.kasmina.grafting.ramping import alphas, calm

OPTIONS = StabilityOptions(check_steps=5, max_failures=3, max_retreats=2)
WILD = [Signals(loss=loss) for loss in (0.0, 2.0, 0.0, 2.0, 0.0)]
CALM = [calm()] * 5


def test_a_calm_run_is_a_linear_ramp() -> None:
    """Checks that pass cost nothing."""
    strategy = StabilityGrafting(20, OPTIONS)
    assert alphas(strategy, CALM * 4) == [n / 20 for n in range(1, 21)]


def test_a_failed_check_holds_until_one_passes() -> None:
    """Two failures in a row do not go back; a pass in between starts the count over."""
    strategy = StabilityGrafting(100, OPTIONS)
    alphas(strategy, CALM * 2)
    assert alphas(strategy, WILD) == [0.11, 0.12, 0.13, 0.14, 0.14]
    assert alphas(strategy, WILD) == [0.14] * 5
    assert alphas(strategy, CALM)[-1] == 0.15
    assert strategy.failures == 0
    assert strategy.retreats == 0


def test_failures_in_a_row_go_back_to_the_last_good_alpha_at_half_speed() -> None:
    """After the third; then alpha rises by half a step at a time."""
    strategy = StabilityGrafting(100, OPTIONS)
    alphas(strategy, CALM * 2)
    stable = strategy.stable_alpha
    course = alphas(strategy, WILD * 3)
    assert stable == 0.09
    assert max(course) == 0.14
    assert course[-1] == stable
    after = alphas(strategy, CALM[:4])
    assert after == [0.095, 0.1, 0.105, 0.11]


def test_it_gives_up_at_the_last_good_alpha() -> None:
    """One retreat more than allowed ends it, in words."""
    strategy = StabilityGrafting(100, OPTIONS)
    alphas(strategy, CALM * 2)
    for _ in range(3):
        assert not strategy.aborted
        alphas(strategy, WILD * 3)
    assert strategy.aborted == "it was unstable 3 times, 3 checks in a row each"
    assert strategy.alpha == strategy.stable_alpha == 0.09


def test_a_check_looks_at_its_own_steps_alone() -> None:
    """A spike of the gradient or of the loss fails one check, not the next."""
    for spike in (Signals(loss=1.0, gradient_norm=50.0), Signals(loss=9.0)):
        strategy = StabilityGrafting(100, OPTIONS)
        alphas(strategy, [spike, *CALM[1:]])
        assert strategy.failures == 1
        alphas(strategy, CALM)
        assert strategy.failures == 0


def test_what_fails_a_check() -> None:
    """Variance above the limit, of large losses relative to their mean, or a gradient spike."""

    def fails(*course: Signals) -> bool:
        strategy = StabilityGrafting(100, OPTIONS)
        alphas(strategy, [*course, *[calm(course[0].loss or 1.0)] * (5 - len(course))])
        return bool(strategy.failures)

    assert not fails(calm(1.0), calm(1.6))
    assert fails(calm(1.0), calm(1.9))
    assert fails(calm(0.01), calm(0.8))
    assert not fails(calm(0.01), calm(0.05))
    assert not fails(calm(1000.0), calm(1600.0))
    assert fails(calm(1000.0), calm(2500.0))
    assert fails(Signals(loss=1.0, gradient_norm=10.1))
    assert not fails(Signals(loss=1.0, gradient_norm=10.0))
    assert not fails(*[Signals()] * 5)
