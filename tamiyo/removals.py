"""How often a blueprint was taken out of a place: each time its embargo doubles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from leyline import Stage
from tamiyo.state import Place, SeedRow, State

_MAX_DOUBLINGS: Final = 16
_MAX_EPOCHS: Final = 2**31 - 1
"""The table counts embargoes in 32 bits."""


class Removals:
    """Counts what was culled or rolled back, by place and blueprint, whoever took it out."""

    def __init__(self) -> None:
        self._counts: dict[Place, int] = {}
        self._out: frozenset[str] = frozenset()

    def note(self, state: State) -> None:
        """See who is out and was not before."""
        gone = (Stage.CULLED, Stage.ROLLED_BACK)
        out = {row.seed: row for row in state.rows if row.stage in gone}
        for seed, row in out.items():
            if seed not in self._out:
                place = state.place_of(row)
                self._counts[place] = self._counts.get(place, 0) + 1
        self._out = frozenset(out)

    def embargo_epochs(self, state: State, row: SeedRow, once: int) -> int:
        """The embargo of a seed that is taken out now.

        Args:
            once: what it is the first time.
        """
        doublings = min(self._counts.get(state.place_of(row), 0), _MAX_DOUBLINGS)
        return min(once << doublings, _MAX_EPOCHS)

    def saved(self) -> dict[str, Any]:
        """As plain values."""
        counts = [[*place, count] for place, count in self._counts.items()]
        return {"counts": counts, "out": sorted(self._out)}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Go on from saved values."""
        self._counts = {
            (site, chunk, blueprint): count for site, chunk, blueprint, count in saved["counts"]
        }
        self._out = frozenset(saved["out"])
