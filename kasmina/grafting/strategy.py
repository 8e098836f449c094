"""Grafting strategies: how alpha goes from 0 to 1, one training step at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import copy
from typing import Any, ClassVar

from kasmina.grafting.signals import Signals


class GraftingStrategy(ABC):
    """One seed's way from alpha 0 to alpha 1.

    Where it is, is counted in steps of an undisturbed linear ramp: alpha is position / num_steps,
    exactly 0 before the first step and exactly 1 at the end. What it decides depends on the
    signals and its own state alone, so a resumed ramp goes on with the same bits.

    Args:
        num_steps: training steps that a linear ramp takes; below 1 counts as 1.
        options: of the class `Options`.
    """

    Options: ClassVar[type[Any]]
    """The dataclass of its parameters."""
    asks_for: ClassVar[frozenset[str]] = frozenset()
    """Names of the signals that it looks at; only these are measured."""

    def __init__(self, num_steps: int, options: Any = None):
        self.num_steps = max(1, num_steps)
        self.options = self.Options() if options is None else options
        self.position = 0.0
        self.aborted = ""
        """Why the strategy gave the graft up; empty while it has not."""

    @property
    def alpha(self) -> float:
        """The blend weight now, 0 to 1."""
        return self.position / self.num_steps

    @property
    def stable_alpha(self) -> float:
        """The newest alpha that is known to have done no harm."""
        return self.alpha

    @property
    @abstractmethod
    def max_steps(self) -> int:
        """Training steps after which it has reached 1 or given up, whatever the signals."""

    @property
    def max_rise(self) -> float:
        """The most that alpha rises in one step."""
        return 1.0 / self.num_steps

    @property
    def max_fall(self) -> float:
        """The most that alpha falls in one step; 0 for a strategy that never goes back."""
        return 0.0

    def step(self, signals: Signals) -> float:
        """Move on by one training step and return the new alpha."""
        self.observe(signals)
        self.position = min(max(self.position + self.progress(), 0.0), float(self.num_steps))
        return self.alpha

    @abstractmethod
    def observe(self, signals: Signals) -> None:
        """Take the signals in; alpha does not move."""

    @abstractmethod
    def progress(self) -> float:
        """How many steps of a linear ramp this training step is worth; below 0 is back."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed ramp needs to go on alike, as plain values."""
        return {name: copy(value) for name, value in vars(self).items() if name != "options"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state; it was built with the saved one's number of steps, options."""
        vars(self).update({name: copy(value) for name, value in state.items()})
