"""Operations under watch: counts, percentiles, memory and the log of slow ones."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from oona.metrics.operations import Operations, resident_size_bytes

MS = 1_000_000


class Clock:
    """Nanoseconds that pass when the test says."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


def timed(clock: Clock, operations: Operations, name: str, ms: float, **options: float) -> None:
    with operations.timed(name, **options):
        clock.now_ns += int(ms * MS)


def test_a_hundred_of_one_kind() -> None:
    """Of 100 operations of 1 to 100 ms the percentiles are those, within 6 %; another name has
    counts of its own, and the summary can be sent as JSON."""
    operations = Operations(clock_ns=(clock := Clock()))
    for ms in range(100, 0, -1):
        timed(clock, operations, "send", ms)
    timed(clock, operations, "connect", 3)
    summary = operations.summary()
    assert list(summary) == ["connect", "send"]
    send = summary["send"]
    assert (send.count, send.errors, send.active) == (100, 0, 0)
    assert [send.p50_ms, send.p95_ms, send.p99_ms] == pytest.approx([50, 95, 99], rel=1 / 16)
    assert send.longest_ms == 100
    assert summary["connect"].p50_ms == pytest.approx(3, rel=1 / 16)
    assert msgspec.json.decode(msgspec.json.encode(summary))["send"]["count"] == 100


def test_errors_and_what_is_under_way() -> None:
    """What raises is counted, and raised on; what has not ended is active; a cancelled operation
    is no error."""
    operations = Operations(clock_ns=Clock())
    with operations.timed("send"):
        assert operations.summary()["send"].active == 1
    with pytest.raises(OSError, match="away"), operations.timed("send"):
        raise OSError("away")
    with pytest.raises(asyncio.CancelledError), operations.timed("send"):
        raise asyncio.CancelledError
    summary = operations.summary()["send"]
    assert (summary.count, summary.errors, summary.active) == (3, 1, 0)


def test_tasks_that_overlap_are_timed_apart(run_async: Callable[..., Any]) -> None:
    """Two tasks that wait side by side are each timed whole, and counted as two under way."""
    operations = Operations()

    async def work(gate: asyncio.Event) -> None:
        with operations.timed("work"):
            await gate.wait()

    async def main() -> int:
        gate = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for name in ("one", "two"):
                group.create_task(work(gate), name=name)
            await asyncio.sleep(0)
            active = operations.summary()["work"].active
            gate.set()
        return active

    assert run_async(main()) == 2
    assert operations.summary()["work"].count == 2


def test_no_count_is_lost_between_threads() -> None:
    """Four threads that time 2,000 operations each lose none."""
    operations = Operations()

    def work() -> None:
        for _ in range(2_000):
            with operations.timed("work"):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    summary = operations.summary()["work"]
    assert (summary.count, summary.active) == (8_000, 0)


def test_slow_ones_are_said_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """A slow operation is logged by its name and limit; those of the next minute are counted in
    the line after it; one within its own limit says nothing."""
    operations = Operations(clock_ns=(clock := Clock()), memory=lambda: None)
    for _ in range(3):
        timed(clock, operations, "send", 1_500)
    timed(clock, operations, "race", 1_500, slow_s=10.0)
    clock.now_ns += 60_000 * MS
    timed(clock, operations, "send", 250, slow_s=0.2)
    assert caplog.messages == [
        "send took 1.50 s, over its 1.00 s",
        "send took 0.25 s, over its 0.20 s; 2 more were slow since the last line",
    ]


def test_memory_is_looked_at_where_that_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What an operation leaves in memory is added up and in its slow line; after a short one the
    next is not looked at, and where nothing can be known that is None."""
    memory = iter([10_000_000, 15_000_000, 15_000_000, 14_000_000])
    operations = Operations(clock_ns=(clock := Clock()), memory=lambda: next(memory))
    timed(clock, operations, "load", 2_000)
    assert caplog.messages == ["load took 2.00 s, over its 1.00 s, memory +5.0 MB"]
    timed(clock, operations, "load", 0.5)
    assert operations.summary()["load"].memory_delta_bytes == 4_000_000
    timed(clock, operations, "load", 0.5)
    assert operations.summary()["load"].memory_delta_bytes == 4_000_000
    blind = Operations(clock_ns=clock, memory=lambda: None)
    timed(clock, blind, "load", 5)
    assert blind.summary()["load"].memory_delta_bytes is None


def test_the_memory_is_the_process_s_own() -> None:
    """40 MB that are written to are seen by the measure that is used when none is given."""
    operations = Operations(clock_ns=(clock := Clock()))
    with operations.timed("fill"):
        held = bytearray(b"x") * 40_000_000
        clock.now_ns += 5 * MS
    assert resident_size_bytes() is not None
    grown = operations.summary()["fill"].memory_delta_bytes
    assert grown is not None
    assert grown == pytest.approx(len(held), rel=0.25)
