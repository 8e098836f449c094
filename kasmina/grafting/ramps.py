"""Ramps: the alphas of all grafting seeds, moved on together after every training step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kasmina.grafting.strategy import LinearGrafting
from kasmina.lifecycle.seed_table import SeedTable
from kasmina.slots.grafted_seed import GraftedSeed


class Ramps:
    """One strategy for each seed in GRAFTING; writes alpha into the seed and into its row."""

    def __init__(self, table: SeedTable):
        self._table = table
        self._strategies: dict[str, LinearGrafting] = {}

    def __len__(self) -> int:
        return len(self._strategies)

    def begin(self, seed: str, num_steps: int) -> None:
        """Start at alpha 0; alpha reaches 1 after `num_steps` steps if nothing disturbs it."""
        self._table.put(seed, alpha=0.0)
        self._strategies[seed] = LinearGrafting(num_steps)

    def end(self, seed: str) -> None:
        """The seed has left GRAFTING, one way or another."""
        self._strategies.pop(seed, None)

    def step(self, held: Mapping[str, GraftedSeed], loss: float | None) -> None:
        """Move on by one training step.

        Args:
            held: the live seeds by name; all that are grafting are among them.
            loss: the newest training loss that is known, if any.
        """
        for seed, strategy in self._strategies.items():
            alpha = strategy.next_alpha()
            held[seed].blend(alpha)
            self._table.put(seed, alpha=alpha)

    def state_dict(self) -> dict[str, Any]:
        """The position of every ramp."""
        return {seed: strategy.state_dict() for seed, strategy in self._strategies.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from saved positions."""
        self._strategies = {}
        for seed, saved in state.items():
            self._strategies[seed] = LinearGrafting(1)
            self._strategies[seed].load_state_dict(saved)
