"""Momentum grafting: alpha rises faster while the loss falls, and never goes back."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kasmina.grafting.options import option
from kasmina.grafting.signals import Signals
from kasmina.grafting.strategy import GraftingStrategy
from kasmina.grafting.trend import gain_of, next_averages


@dataclass(frozen=True)
class MomentumOptions:
    """How gains turn into velocity, in steps of a linear ramp per training step."""

    momentum: float = option(0.9, low=0.0, high=0.999)
    """Share of its velocity that a step keeps: it follows gains within about 10 steps."""
    acceleration: float = option(10.0, low=0.0)
    """Velocity that a gain of 1 adds: while the loss falls by 5 %, alpha rises 1.5 times as
    fast."""
    min_velocity: float = option(0.5, low=0.01, high=1.0)
    """Slowest rise: without it a loss that never falls would keep the seed out for ever."""
    max_velocity: float = option(2.0, low=1.0, high=100.0)
    """Fastest rise."""


class MomentumGrafting(GraftingStrategy):
    """Velocity follows 1 + acceleration * gain; the gain is the relative fall of the loss."""

    Options = MomentumOptions
    asks_for = frozenset({"loss"})

    def __init__(self, num_steps: int, options: MomentumOptions | None = None):
        super().__init__(num_steps, options)
        self.averages: list[float] = []
        self.velocity = 1.0

    @property
    def max_steps(self) -> int:
        """A ramp at the slowest rise; one step more for what summing rounds off."""
        slowest: float = self.options.min_velocity
        return math.ceil(self.num_steps / slowest) + 1

    @property
    def max_rise(self) -> float:
        """A step at the fastest rise."""
        return float(self.options.max_velocity / self.num_steps)

    def observe(self, signals: Signals) -> None:
        """Let the velocity follow the newest gain."""
        if signals.loss is not None:
            self.averages = next_averages(self.averages, signals.loss)
        wanted = 1.0 + self.options.acceleration * gain_of(self.averages)
        wanted = min(max(wanted, self.options.min_velocity), self.options.max_velocity)
        self.velocity += (1.0 - self.options.momentum) * (wanted - self.velocity)

    def progress(self) -> float:
        """The velocity."""
        return self.velocity
