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


class HoldPolicy:
    """Growth off: never asks for anything."""

    name = "hold"

    def decide(self, state: State) -> Decision:
        """Hold."""
        return Decision(epoch=state.packet.epoch, policy=self.name, cause="growth is off")

    def state_dict(self) -> dict[str, Any]:
        """Nothing is remembered."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing is remembered."""
