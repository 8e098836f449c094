"""The trend of the loss: how far its newest average lies below its older one."""

from __future__ import annotations

from typing import Final

_FAST: Final = 0.2
_SLOW: Final = 0.05
"""Weights of the newest loss: the averages look back about 5 and 20 steps."""


def next_averages(averages: list[float], loss: float) -> list[float]:
    """The fast and the slow average after one more loss; before the first there are none."""
    fast, slow = averages or (loss, loss)
    return [fast + _FAST * (loss - fast), slow + _SLOW * (loss - slow)]


def gain_of(averages: list[float]) -> float:
    """The relative fall of the loss: above 0 while it falls, 0 while nothing is known."""
    if not averages:
        return 0.0
    fast, slow = averages
    return (slow - fast) / abs(slow) if slow else 0.0
