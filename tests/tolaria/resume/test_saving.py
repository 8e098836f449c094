"""Saving: a disk that is full is tried again after a pause, and training goes on all the while."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leyline import BoundaryTiming, BreakerChange
from tests.tolaria.plain_loops import adam, attach, faults, listen, make_host, run
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria.boundary.breakers import CLOSED, HALF_OPEN, OPEN


@pytest.fixture
def file_size_limit() -> Iterator[Any]:
    """Sets the largest size of a file of this process, as a full disk would, until the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size_bytes: resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _num_checkpoints(run_dir: Path) -> int:
    return len(list((run_dir / "checkpoints").rglob("manifest.json")))


@pytest.mark.parametrize("in_background", [False, True])
def test_after_three_failed_checkpoints_the_disk_is_left_alone_for_a_minute(
    in_background: bool, tmp_path: Path, file_size_limit: Any
) -> None:
    """Three failures open the breaker: until its time is up nothing is tried and no fault added;
    then one save decides, and with room again checkpoints come as before."""
    model = make_host()
    optimizer = adam(model)
    settings = {
        "policy": "hold",
        "checkpoint": True,
        "async_checkpoints": in_background,
        "keep_checkpoints": 50,
    }
    with attach(model, optimizer, tmp_path / "run", **settings) as esper:
        now_s = [0.0]
        breaker = esper.breakers.checkpoint
        breaker._clock = lambda: now_s[0]
        events = listen(esper)
        run(model, optimizer, esper, 1)
        assert esper.session.newest_checkpoint() is not None  # waits for its writer
        file_size_limit(1)  # no file can grow any more
        run(model, optimizer, esper, 3 + in_background)
        assert breaker.state == OPEN
        told = [fault for fault in faults(events) if fault.where == "checkpoint"]
        assert len(told) == 3
        run(model, optimizer, esper, 3)
        now_s[0] += 59.0
        run(model, optimizer, esper, 1)
        assert len([f for f in faults(events) if f.where == "checkpoint"]) == 3
        file_size_limit(resource.RLIM_INFINITY)
        now_s[0] += 2.0
        run(model, optimizer, esper, 2)
        assert breaker.state == CLOSED
    timings = [event.outside_ms for event in events if isinstance(event, BoundaryTiming)]
    saves = ["".join(name for name in timing if "checkpoint" in name) for timing in timings]
    # In the background one is known to have failed by the next; the last tells of one before.
    later = ["failed checkpoint" if in_background else "checkpoint", "checkpoint"]
    tried = ["checkpoint"] * (1 + in_background) + ["failed checkpoint"] * 3
    assert saves == [*tried, *[""] * 4, *later]
    changes = [event.now for event in events if isinstance(event, BreakerChange)]
    assert changes == [OPEN, HALF_OPEN, CLOSED]
    assert _num_checkpoints(tmp_path / "run") == 3


@pytest.mark.parametrize("in_background", [False, True])
def test_the_last_checkpoint_is_tried_whatever_failed_before(
    in_background: bool, tmp_path: Path, file_size_limit: Any
) -> None:
    """The breaker is open and its time not up, but there is room again: what the last epoch has
    come to is on the disk, since no later save could be."""
    model = make_host()
    optimizer = adam(model)
    settings = {"policy": "hold", "checkpoint": True, "async_checkpoints": in_background}
    with attach(model, optimizer, tmp_path / "run", num_epochs=8, **settings) as esper:
        esper.breakers.checkpoint._clock = lambda: 0.0
        run(model, optimizer, esper, 1)
        assert esper.session.newest_checkpoint() is not None
        file_size_limit(1)
        run(model, optimizer, esper, 4)
        assert esper.breakers.checkpoint.state == OPEN
        file_size_limit(resource.RLIM_INFINITY)
        run(model, optimizer, esper, 2)
        assert esper.breakers.checkpoint.state == OPEN
        run(model, optimizer, esper, 1)
        newest = esper.session.newest_checkpoint()
        assert newest is not None
        assert newest.name == f"step-{esper.step:08d}"
