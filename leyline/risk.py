"""How near a run is to harm, in five levels; docs/risk.md says what brings each about."""

from __future__ import annotations

from enum import IntEnum


class RiskLevel(IntEnum):
    """Each allows less than the one before it."""

    GREEN = 0
    """All is well."""
    YELLOW = 1
    """Alpha rises at half speed."""
    ORANGE = 2
    """Also, nothing is planted and no race begins."""
    RED = 3
    """Also, no graft begins and alpha stands still; what has not settled is rolled back."""
    CRITICAL = 4
    """The run ends, with a checkpoint to go on from."""
