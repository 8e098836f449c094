"""Drift-controlled grafting: alpha holds while the host's weights move fast."""

from __future__ import annotations

from dataclasses import dataclass

from kasmina.grafting.options import option
from kasmina.grafting.signals import Signals
from kasmina.grafting.strategy import GraftingStrategy


@dataclass(frozen=True)
class DriftOptions:
    """When and how long alpha holds."""

    drift_limit: float = option(0.01, low=0.0)
    """Relative weight drift per step, averaged, above which alpha holds. With Adam a layer moves
    by 0.1 to 0.5 % a step once it has settled and by 1 to 4 % in its first epoch."""
    pause_steps: int = option(10, low=1)
    """Steps that one hold takes: as long as the average looks back."""
    smoothing: float = option(0.1, low=0.001, high=1.0)
    """Weight of the newest step in the moving average; 1 looks at that step alone."""
    max_stretch: float = option(4.0, low=1.0)
    """Longest ramp, as a multiple of a linear one; then alpha holds no more. A host that keeps
    moving is training, which is no reason to keep a seed out for ever."""


class DriftControlledGrafting(GraftingStrategy):
    """A linear ramp with holds; never goes back. While no drift is known it does not hold."""

    Options = DriftOptions
    asks_for = frozenset({"weight_drift"})

    def __init__(self, num_steps: int, options: DriftOptions | None = None):
        super().__init__(num_steps, options)
        self.drift: float | None = None
        self.pause_left = 0
        self.steps_held = 0

    @property
    def max_steps(self) -> int:
        """A linear ramp and the longest holds, in training steps."""
        return self.num_steps + self._most_held

    @property
    def _most_held(self) -> int:
        return int((self.options.max_stretch - 1.0) * self.num_steps)

    def observe(self, signals: Signals) -> None:
        """Average the drift."""
        newest = signals.weight_drift
        if newest is not None:
            before = newest if self.drift is None else self.drift
            self.drift = before + self.options.smoothing * (newest - before)

    def progress(self) -> float:
        """One, or nothing during a hold."""
        drifts = self.drift is not None and self.drift > self.options.drift_limit
        if drifts and self.pause_left == 0:
            self.pause_left = self.options.pause_steps
        if self.pause_left == 0 or self.steps_held >= self._most_held:
            return 1.0
        self.pause_left -= 1
        self.steps_held += 1
        return 0.0
