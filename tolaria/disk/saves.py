"""What a journal says of checkpoints, for a run that has none left."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from leyline import BoundaryTiming, CheckpointError, Event, Fault, RunEnded
from tolaria.disk.journal import read
from tolaria.disk.run import RunDirectory

SAVE: Final = "checkpoint"
"""The part of a boundary's time that went into a save, where no failure was known by then."""
FAILED_SAVE: Final = "failed checkpoint"
"""The same where one was: this save's, or in the background that of the one before."""


def has_saved(history: Iterable[Event]) -> bool:
    """Whether a history proves that a checkpoint of it was on the disk.

    A boundary's timing names the save before it. In the background one that fails is told by the
    next save, the last one by the run's end: only then is silence a proof. The fault itself may
    be lost to the same disk, so the timing says too that a save has failed.
    """
    num_saves = 0
    for event in history:
        match event:
            case Fault(where="checkpoint"):
                return num_saves > 1
            case BoundaryTiming() if SAVE in event.outside_ms:
                num_saves += 1
            case RunEnded() if num_saves:
                return True
    return num_saves > 1


def refuse_lost(run: RunDirectory, *, damaged: bool) -> None:
    """Refuse to begin again over a run that had checkpoints.

    Args:
        damaged: whether there are some, none of them whole.

    Raises:
        CheckpointError: it had.
    """
    if damaged or (run.journal.is_file() and has_saved(read(run.journal))):
        raise CheckpointError(
            f"{run.path} has no whole checkpoint left, though it had some: it cannot go on; start "
            "another run in another run directory (--run-dir, run_dir=), or delete this one"
        )
