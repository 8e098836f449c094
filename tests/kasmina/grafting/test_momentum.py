"""Momentum grafting: faster on gains, slower without, never back."""

from __future__ import annotations

import pytest

from kasmina.grafting.momentum import MomentumGrafting, MomentumOptions
from kasmina.grafting.signals import Signals
from tests.kasmina.grafting.ramping import alphas


def steps_to_one(factor: float, num_steps: int = 100) -> int:
    """Training steps to alpha 1 while the loss changes by a factor each step."""
    strategy = MomentumGrafting(num_steps)
    course = [Signals(loss=2.0 * factor**step) for step in range(strategy.max_steps)]
    return alphas(strategy, course).index(1.0) + 1


def test_gains_hasten_and_losses_delay() -> None:
    """A flat loss takes a linear ramp's steps, a falling one fewer, a rising one more."""
    fast, flat, slow = (steps_to_one(factor) for factor in (0.98, 1.0, 1.02))
    assert fast < 70
    assert flat == 100
    assert 130 < slow <= 200


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_the_unit_of_the_loss_does_not_matter(unit: float) -> None:
    """Gains are relative."""
    losses = [3.0, 2.5, 2.7, 2.0, 1.0, 0.9]
    courses = [
        alphas(MomentumGrafting(20), [Signals(loss=scale * loss) for loss in losses])
        for scale in (1.0, unit)
    ]
    assert courses[0] == pytest.approx(courses[1], rel=1e-9)


def test_velocity_stays_within_its_limits() -> None:
    """However fast the loss falls or rises."""
    options = MomentumOptions(momentum=0.0, min_velocity=0.25, max_velocity=4.0)
    for losses, expected in (([1.0, *[1e-9] * 9], 4.0), ([1.0, 1e9], 0.25), ([0.0, 0.0], 1.0)):
        strategy = MomentumGrafting(100, options)
        alphas(strategy, [Signals(loss=loss) for loss in losses])
        assert strategy.velocity == expected
