"""The classes of faults: what is injected, how many it takes to count, and what must hold after."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple


class Oracle(StrEnum):
    """What a run with the fault is held against."""

    TRANSPARENT = "as the undisturbed run, to the bit"
    SEED_CULLED = "as the run in which that seed is culled there, to the bit"
    BATCH_SKIPPED = "as the run that skips those batches, to the bit"
    REFUSED = "refused by name, nothing changed"
    EXACT = "every event counted, none lost silently"


class FaultClass(NamedTuple):
    """One row of the fault table."""

    name: str
    least: int
    """Faults without which the class does not count."""
    oracle: Oracle


CLASSES: Final = {
    1: FaultClass("kill at every file operation", 400, Oracle.TRANSPARENT),
    2: FaultClass("kill at a system call, by strace", 40, Oracle.TRANSPARENT),
    3: FaultClass("power loss: unsynced operations lost", 2_000, Oracle.TRANSPARENT),
    4: FaultClass("damaged, cut or swapped files", 10_000, Oracle.REFUSED),
    5: FaultClass("errors of the disk", 160, Oracle.TRANSPARENT),
    6: FaultClass("server killed, restarted, never there", 100, Oracle.EXACT),
    7: FaultClass("network slow, cut, half open", 30, Oracle.EXACT),
    8: FaultClass("hostile answers of a server", 12, Oracle.EXACT),
    9: FaultClass("flood of telemetry", 3, Oracle.EXACT),
    10: FaultClass("losses and gradients not finite", 60, Oracle.BATCH_SKIPPED),
    11: FaultClass("hostile blueprints", 60, Oracle.SEED_CULLED),
    12: FaultClass("no memory in a blueprint", 6, Oracle.SEED_CULLED),
    13: FaultClass("policies late, hanging, raising, wrong", 20, Oracle.TRANSPARENT),
    14: FaultClass("signals at every phase", 24, Oracle.TRANSPARENT),
    15: FaultClass("kills of the trainer, one trajectory", 50, Oracle.TRANSPARENT),
    16: FaultClass("clocks that jump, stop, lie", 8, Oracle.TRANSPARENT),
    17: FaultClass("two runs, one directory", 200, Oracle.REFUSED),
    18: FaultClass("mutated messages", 200_000, Oracle.REFUSED),
    19: FaultClass("any sequence of lifecycle commands", 2_000, Oracle.REFUSED),
    20: FaultClass("any sequence of rollbacks", 300, Oracle.TRANSPARENT),
    21: FaultClass("other versions, other machines", 8, Oracle.REFUSED),
    22: FaultClass("hostile input", 40, Oracle.REFUSED),
}
MESSAGES: Final = 18
"""The class whose faults are counted apart, as mutated messages."""
GOAL_FAULTS: Final = 15_000
GOAL_MESSAGES: Final = 200_000
