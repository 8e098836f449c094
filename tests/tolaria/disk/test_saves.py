"""What proves that a run had checkpoints, once they are gone."""

from __future__ import annotations

import pytest

from leyline import BoundaryTiming, Event, Fault, RunEnded
from tolaria.disk.saves import has_saved

SAVED = BoundaryTiming(
    epoch=2, gather_ms=0.1, decide_ms=0.1, apply_ms=0.1, outside_ms={"checkpoint": 3.0}
)
FAILED = BoundaryTiming(
    epoch=2, gather_ms=0.1, decide_ms=0.1, apply_ms=0.1, outside_ms={"failed checkpoint": 3.0}
)
PLAIN = BoundaryTiming(epoch=1, gather_ms=0.1, decide_ms=0.1, apply_ms=0.1, outside_ms={})
FAULT = Fault(epoch=2, step=8, where="checkpoint", what="full", action="training goes on")
END = RunEnded(run_id="r", epoch=2, status="finished", parameters=1, metrics={})


@pytest.mark.parametrize(
    ("history", "proven"),
    [
        ([PLAIN, PLAIN, END], False),
        ([PLAIN, SAVED], False),  # the only save may still have been under way
        ([PLAIN, SAVED, SAVED], True),
        ([PLAIN, SAVED, END], True),
        ([PLAIN, SAVED, FAULT, SAVED, END], False),
        ([PLAIN, SAVED, SAVED, FAULT, END], True),
        ([PLAIN, SAVED, FAILED, FAILED, PLAIN], False),  # a disk so full that it took no fault
        ([PLAIN, FAILED, FAILED, SAVED], False),
        ([PLAIN, FAILED, SAVED, SAVED], True),
    ],
)
def test_a_save_counts_once_the_next_word_did_not_fail_it(
    history: list[Event], *, proven: bool
) -> None:
    """A save is proven by the next one, or by the run's end, that tells of no failure."""
    assert has_saved(history) is proven
