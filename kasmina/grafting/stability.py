"""Stability grafting: alpha is checked on its way, and goes back to where all was well."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Final

from kasmina.grafting.options import option
from kasmina.grafting.signals import Signals
from kasmina.grafting.strategy import GraftingStrategy

_SLOW: Final = 0.5


@dataclass(frozen=True)
class StabilityOptions:
    """What is checked how often, and what follows."""

    check_steps: int = option(10, low=2)
    """Training steps from check to check, over which the variance is taken."""
    variance_limit: float = option(0.1, low=0.0)
    """Largest variance of the loss, in its unit squared; of a loss above 1, relative to the square
    of its mean. Ten steps of an undisturbed classifier show 0.001 to 0.05."""
    gradient_norm_limit: float = option(10.0, low=0.0)
    """Largest gradient norm of the host's module at the site; 1 is common, 10 is a spike."""
    max_failures: int = option(3, low=1)
    """Failed checks in a row after which alpha goes back."""
    max_retreats: int = option(3, low=0)
    """Times that alpha may go back before the graft is given up."""


class StabilityGrafting(GraftingStrategy):
    """A linear ramp that a failed check stops until the next one passes.

    After `max_failures` in a row alpha goes back to that of the last check that passed, 0 if there
    was none, and rises at half speed from then on. What is not known fails no check.
    """

    Options = StabilityOptions
    asks_for = frozenset({"loss", "gradient_norm"})

    def __init__(self, num_steps: int, options: StabilityOptions | None = None):
        super().__init__(num_steps, options)
        self.losses: list[float] = []
        self.gradient_norm = 0.0
        self.steps_since_check = 0
        self.stable_position = 0.0
        self.failures = 0
        self.retreats = 0

    @property
    def stable_alpha(self) -> float:
        """Alpha at the last check that passed."""
        return self.stable_position / self.num_steps

    @property
    def max_steps(self) -> int:
        """Every check but the last in a row fails, at half speed, and each retreat loses most."""
        options: StabilityOptions = self.options
        lost = (options.max_retreats + 1) * options.check_steps
        risen = (self.num_steps + lost) / _SLOW
        return math.ceil(options.max_failures * (risen + lost)) + options.check_steps

    @property
    def max_fall(self) -> float:
        """What was risen since the last check that passed."""
        return float(self.options.check_steps / self.num_steps)

    def observe(self, signals: Signals) -> None:
        """Collect what the next check looks at."""
        if signals.loss is not None:
            self.losses.append(signals.loss)
        if signals.gradient_norm is not None:
            self.gradient_norm = max(self.gradient_norm, signals.gradient_norm)

    def progress(self) -> float:
        """One, half of it after a retreat, nothing after a failed check; below 0 in a retreat."""
        self.steps_since_check += 1
        if self.steps_since_check >= self.options.check_steps:
            if self._passes():
                self.failures, self.stable_position = 0, self.position
            else:
                self.failures += 1
            self.losses, self.gradient_norm, self.steps_since_check = [], 0.0, 0
            if self.failures >= self.options.max_failures:
                return self._retreat()
        if self.failures:
            return 0.0
        return _SLOW if self.retreats else 1.0

    def _passes(self) -> bool:
        if self.gradient_norm > self.options.gradient_norm_limit:
            return False
        if len(self.losses) < 2:
            return True
        scale = max(1.0, abs(statistics.fmean(self.losses)))
        most: float = self.options.variance_limit * scale**2
        return statistics.variance(self.losses) <= most

    def _retreat(self) -> float:
        self.failures = 0
        self.retreats += 1
        if self.retreats > self.options.max_retreats:
            self.aborted = (
                f"it was unstable {self.retreats} times, {self.options.max_failures} checks in a "
                "row each"
            )
        return self.stable_position - self.position
