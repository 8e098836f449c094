"""Linear grafting: alpha rises by the same amount each step, whatever happens."""

from __future__ import annotations

from dataclasses import dataclass

from kasmina.grafting.signals import Signals
from kasmina.grafting.strategy import GraftingStrategy


@dataclass(frozen=True)
class LinearOptions:
    """Nothing to set: the length of the ramp is `ramp_epochs`."""


class LinearGrafting(GraftingStrategy):
    """Remembers nothing but its position. Many of them move as columns, see LinearRamps."""

    Options = LinearOptions

    @property
    def max_steps(self) -> int:
        """The length of the ramp."""
        return self.num_steps

    def observe(self, signals: Signals) -> None:
        """Nothing disturbs it."""

    def progress(self) -> float:
        """Always one."""
        return 1.0
