"""Adaptive grafting: which strategy when, and no jump from one to the next."""

from __future__ import annotations

import pytest

from kasmina.grafting.adaptive import AdaptiveGrafting
from kasmina.grafting.signals import Signals
from tests.kasmina.grafting.ramping import alphas

FALLING = [2.0 * 0.98**step for step in range(60)]
FLAT = [2.0] * 60


@pytest.mark.parametrize(
    ("drift", "losses", "mode"),
    [
        (0.02, FALLING, "drift_controlled"),
        (0.006, FALLING, "drift_controlled"),
        (0.004, FALLING, "momentum"),
        (0.004, FLAT, "linear"),
        (0.004, FLAT[::-1] + FALLING[::-1], "linear"),
        (None, FALLING, "momentum"),
        (None, [None] * 60, "linear"),
    ],
)
def test_the_strategy_follows_what_is_going_on(
    drift: float | None, losses: list[float | None], mode: str
) -> None:
    """Above half the drift limit drift-controlled, else momentum on gains, else linear."""
    strategy = AdaptiveGrafting(1000)
    alphas(strategy, [Signals(loss=loss, weight_drift=drift) for loss in losses])
    assert strategy.mode == mode


def test_it_moves_as_the_strategy_of_the_step() -> None:
    """Faster than a linear ramp on gains, not at all in a hold, exactly linear without either."""
    strategy = AdaptiveGrafting(1000)
    for drift, losses, low, high in (
        (0.001, FALLING, 65, 120),
        (0.001, FLAT, 60, 75),
        (0.1, FLAT, 0, 10),
    ):
        start = strategy.position
        alphas(strategy, [Signals(loss=loss, weight_drift=drift) for loss in losses])
        assert low <= strategy.position - start <= high
    fresh = AdaptiveGrafting(1000)
    alphas(fresh, [Signals(loss=loss, weight_drift=0.001) for loss in FLAT])
    assert fresh.position == 60


def test_a_switch_is_no_jump() -> None:
    """While drift and gains come and go, no step is larger than one of the three's own."""
    strategy = AdaptiveGrafting(100)
    modes, before = set(), 0.0
    for step in range(300):
        drift = 0.08 if step % 30 == 20 else 0.0
        loss = 2.0 * 0.9 ** min(step % 30, 15)
        alpha = strategy.step(Signals(loss=loss, weight_drift=drift))
        modes.add(strategy.mode)
        assert 0.0 <= alpha - before <= strategy.max_rise + 1e-12
        before = alpha
    assert modes == {"drift_controlled", "momentum", "linear"}
    assert before == 1.0
