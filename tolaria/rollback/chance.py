"""Chance: what time, memory and disks say of risk, and what they said before a resume."""

from __future__ import annotations

from collections.abc import Mapping

from leyline import RiskLevel
from tamiyo.risk.signals import Chance
from tolaria.rollback.triggers import MemoryLimit


class ChanceWatch:
    """Looks once in each boundary. What it says is on record, and is said again after a resume."""

    def __init__(self) -> None:
        self._overruns_in_a_row = 0
        self._levels: Mapping[int, int] = {}
        self._last_known = 0

    def replay(self, levels: Mapping[int, int], last_epoch: int) -> None:
        """Answer as the run that is resumed did.

        Args:
            levels: the RiskLevel that all this came to, by epoch; GREEN where there is none.
            last_epoch: the last epoch of which that is known.
        """
        self._levels, self._last_known = levels, last_epoch

    def see(self, epoch: int, memory: MemoryLimit, *, overran: bool, saves_held: bool) -> Chance:
        """What there is at the boundary of an epoch.

        Args:
            epoch: the one that ends, from 1.
            memory: asked once, for its usage.
            overran: whether the boundary before took longer than it may.
            saves_held: whether checkpoints cannot be written for now.
        """
        self._overruns_in_a_row = self._overruns_in_a_row + 1 if overran else 0
        memory_share, num_short = memory.usage()
        if epoch <= self._last_known:
            return Chance(replayed=RiskLevel(self._levels.get(epoch, 0)))
        return Chance(
            overruns_in_a_row=self._overruns_in_a_row,
            memory_share=memory_share,
            num_short_since_rollback=num_short,
            saves_held=saves_held,
        )
