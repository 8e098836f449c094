"""Grafting strategies: how alpha goes from 0 to 1, one training step at a time."""

from __future__ import annotations

from typing import Any, Protocol


class GraftingStrategy(Protocol):
    """Gives the alpha for the next step; exactly 0 before the first, exactly 1 at the end."""

    def next_alpha(self) -> float:
        """Move on by one training step."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on alike."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved position."""


class LinearGrafting:
    """Alpha rises by the same amount each step."""

    def __init__(self, num_steps: int):
        self.num_steps = max(1, num_steps)
        self.steps_done = 0

    def next_alpha(self) -> float:
        """The alpha after one more step, at most 1."""
        self.steps_done = min(self.steps_done + 1, self.num_steps)
        return self.steps_done / self.num_steps

    def state_dict(self) -> dict[str, Any]:
        """Length and position of the ramp, in steps."""
        return {"num_steps": self.num_steps, "steps_done": self.steps_done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved position."""
        self.num_steps, self.steps_done = state["num_steps"], state["steps_done"]
