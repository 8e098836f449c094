"""The policy protocol: state in, decision out, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from leyline import Decision
from tamiyo.state import State


class Policy(Protocol):
    """Decides what grows. The same state and the same saved state give the same decision."""

    name: str

    def decide(self, state: State) -> Decision:
        """Say what should be done at this boundary, and why."""

    def state_dict(self) -> dict[str, Any]:
        """Everything the next decision depends on besides the state, as plain values."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
