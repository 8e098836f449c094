"""The hold policy: growth off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leyline import Decision
from tamiyo.state import State


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
