"""Many lives in one place: nothing is left of the seeds that were there before."""

from __future__ import annotations

import gc
import sys
import tracemalloc

import pytest

from kasmina.slots.slot import attached_seeds
from leyline import Stage
from tests.kasmina.grower import SEED, Grower, advance, cull, germinate


def cycle(grower: Grower) -> None:
    """One seed germinated and culled from its trial, another grafted and pulled out again."""
    for to in (Stage.TRAINING, Stage.GRAFTING):
        assert not grower.apply(germinate())[-1].refused
        grower.executor.prove(grower.epoch)
        if to is Stage.GRAFTING:
            assert not grower.apply(advance(to))[-1].refused
            grower.executor.after_step()
        assert not grower.apply(cull(epochs=1))[-1].refused
        grower.end_epoch()
    assert attached_seeds(grower.model) == {}


def settled() -> Grower:
    """One whose ring, caches and free lists are full."""
    grower = Grower()
    grower.executor.trials_waived = "a test of lives, not of trials"
    for _ in range(15):
        cycle(grower)
    return grower


def blocks() -> tuple[int, int]:
    """Tracked objects, and blocks of memory that Python's allocator has given out."""
    gc.collect()
    return len(gc.get_objects()), sys.getallocatedblocks()


def live(grower: Grower, num_cycles: int) -> None:
    for _ in range(num_cycles):
        cycle(grower)


def test_lives_leave_no_objects_behind() -> None:
    """Sixty lives at one place, and not one object more for every second of them."""
    grower = settled()
    before = blocks()
    live(grower, 30)
    assert blocks()[0] - before[0] < 30


@pytest.mark.slow
def test_two_thousand_lives_leave_nothing_behind() -> None:
    """Objects and blocks are flat from the first to the last, traced bytes in the last of them."""
    grower = settled()
    before = blocks()
    live(grower, 940)
    after = blocks()
    assert after[0] - before[0] < 100
    assert after[1] - before[1] < 900
    traced_bytes = []
    tracemalloc.start()
    for _ in range(2):
        live(grower, 30)
        gc.collect()
        traced_bytes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert traced_bytes[1] - traced_bytes[0] < 16_384
    assert grower.table.get(SEED, "num_transitions") == 9 * 1_015 - 1
