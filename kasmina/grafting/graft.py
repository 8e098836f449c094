"""A graft: one seed's strategy, behind a wall that turns its errors into a pause or an end."""

from __future__ import annotations

from typing import Any, Final

from kasmina.grafting.signals import Signals
from kasmina.grafting.strategy import GraftingStrategy
from kasmina.guard import attempt, describe

MAX_ERRORS: Final = 3
"""Errors in a row that end a graft; fewer hold alpha for a step each."""


class Graft:
    """Moves alpha as the strategy says, for as long as that is sound.

    An error is an exception, a signal that is not finite, or an alpha that is NaN or outside 0 to
    1. However it goes, alpha is 1 or the graft has failed after `max_steps` training steps.
    """

    def __init__(self, strategy: GraftingStrategy):
        self._strategy = strategy
        self.alpha = 0.0
        """The blend weight now; exactly 0 before the first step."""
        self.fault = ""
        """Why the graft has failed: alpha stays where it is. Empty while it has not."""
        self.num_errors = 0
        """Errors in a row."""
        self._num_steps = 0

    @property
    def asks_for(self) -> frozenset[str]:
        """Names of the signals that are needed; none once nothing moves any more."""
        settled = self.fault or self.alpha == 1.0
        return frozenset() if settled else self._strategy.asks_for

    @property
    def max_steps(self) -> int:
        """Two errors may come before each step that counts."""
        return MAX_ERRORS * self._strategy.max_steps

    def step(self, signals: Signals) -> None:
        """Move on by one training step, unless the graft is done or has failed."""
        if self.fault or self.alpha == 1.0:
            return
        self._num_steps += 1
        error = signals.fault() or self._move(signals)
        self.num_errors = self.num_errors + 1 if error else 0
        if self.num_errors >= MAX_ERRORS:
            self._fail(f"{MAX_ERRORS} errors in a row, the last: {error}")
        elif self._strategy.aborted:
            self._fail(self._strategy.aborted)
        elif self._num_steps >= self.max_steps and self.alpha < 1.0:
            self._fail(f"alpha has not reached 1 in {self._num_steps} steps")

    def _move(self, signals: Signals) -> str:
        """Take the strategy's next alpha; what is wrong with it, or nothing."""
        alpha = attempt(lambda: self._strategy.step(signals))
        if isinstance(alpha, Exception):
            return describe(alpha)
        if not 0.0 <= alpha <= 1.0:
            return f"its alpha is {alpha!r}, which is not between 0 and 1"
        self.alpha = alpha
        return ""

    def _fail(self, why: str) -> None:
        stable = attempt(lambda: self._strategy.stable_alpha)
        if isinstance(stable, float) and 0.0 <= stable < self.alpha:
            self.alpha = stable
        self.fault = f"grafting stopped at alpha {self.alpha:.3g}: {why}"

    def state_dict(self) -> dict[str, Any]:
        """Everything but the strategy's options, as plain values."""
        return {
            "strategy": self._strategy.state_dict(),
            "alpha": self.alpha,
            "fault": self.fault,
            "num_errors": self.num_errors,
            "num_steps": self._num_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self._strategy.load_state_dict(state["strategy"])
        self.alpha, self.fault = state["alpha"], state["fault"]
        self.num_errors, self._num_steps = state["num_errors"], state["num_steps"]
