"""The publisher: order, faults and patience."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from leyline import Priority
from oona.outbox import file as outbox_file
from oona.outbox.outbox import Outbox
from oona.publishing.publisher import Publisher
from oona.streams.entry import ENTRY_RECORDS, Entry, unpack
from oona.streams.memory import MemoryTransport
from oona.streams.transport import ServerError


class FaultyTransport(MemoryTransport):
    """A server that fails as told, once per fault, and then works."""

    def __init__(self, *faults: Exception | str):
        super().__init__()
        self._faults = list(faults)

    def append(self, entries: Sequence[Entry]) -> list[str | None]:
        if self._faults:
            fault = self._faults.pop(0)
            if isinstance(fault, Exception):
                raise fault
            return [fault, *super().append(entries[1:])]
        return super().append(entries)


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / outbox_file.FILE_NAME, ring_size_bytes=256 * 1024)


def bodies(transport: MemoryTransport) -> list[bytes]:
    return [
        body
        for entry in transport.entries
        for body in unpack(str(entry.num_events).encode(), entry.payload)
    ]


def test_the_emergency_lane_goes_first_and_events_travel_together(outbox: Outbox) -> None:
    """A backlog is sent lane by lane, most urgent first, many events in one entry."""
    for number in range(3 * ENTRY_RECORDS):
        for lane in Priority:
            assert outbox.append(lane, "Fault", f"{lane.name} {number}".encode())
    transport = MemoryTransport()
    publisher = Publisher(outbox, transport)
    assert publisher.flush(10.0)
    publisher.stop(5.0)
    assert [entry.lane for entry in transport.entries] == [
        lane for lane in sorted(Priority, reverse=True) for _ in range(3)
    ]
    assert bodies(transport)[: 3 * ENTRY_RECORDS] == [
        f"EMERGENCY {number}".encode() for number in range(3 * ENTRY_RECORDS)
    ]


@pytest.mark.parametrize(
    ("faults", "num_faults"),
    [
        ([ServerError("gone")] * 2, 0),
        (["refused"], 0),
        ([RuntimeError("unforeseen"), KeyError("also")], 2),
    ],
    ids=["unreachable", "refusing", "unforeseen"],
)
def test_the_thread_survives_every_fault(
    outbox: Outbox, faults: list[Exception | str], num_faults: int
) -> None:
    """After any fault the publisher tries again, delivers all, and counts the unforeseen ones."""
    for number in range(5):
        assert outbox.append(Priority.METRIC, "StepMetrics", f"event {number}".encode())
    transport = FaultyTransport(*faults)
    publisher = Publisher(outbox, transport)
    assert publisher.flush(10.0)
    publisher.stop(5.0)
    assert publisher.status().num_faults == num_faults
    assert bodies(transport) == [f"event {number}".encode() for number in range(5)]
    ledger = outbox.count()
    assert (ledger.delivered, ledger.queued) == (5, 0)


class NarrowTransport(MemoryTransport):
    """A line on which only so much gets through before the answer counts as missing."""

    def __init__(self, room_bytes: int):
        super().__init__()
        self.room_bytes = room_bytes
        self.num_refused = 0

    def append(self, entries: Sequence[Entry]) -> list[str | None]:
        if sum(len(entry.payload) for entry in entries) > self.room_bytes:
            self.num_refused += 1
            raise ServerError("Timeout reading from socket")
        return super().append(entries)


def test_a_slow_line_gets_less_at_once(outbox: Outbox) -> None:
    """After failures less is sent at a time, until it gets through; on a wide line more again."""
    for number in range(1000):
        assert outbox.append(Priority.METRIC, "StepMetrics", f"event {number} ".encode() * 15)
    transport = NarrowTransport(16_000)
    publisher = Publisher(outbox, transport)
    assert publisher.flush(20.0)
    assert 2 <= transport.num_refused < 30
    transport.room_bytes = 10**9
    for _ in range(8):
        for _ in range(1000):
            assert outbox.append(Priority.METRIC, "StepMetrics", bytes(150))
        assert publisher.flush(20.0)
    publisher.stop(5.0)
    assert outbox.count().delivered == 9000
    assert max(len(entry.payload) for entry in transport.entries) > 20_000


def test_an_impatient_flush_ends_with_the_first_failure(outbox: Outbox) -> None:
    """Without retries a flush does not wait for its timeout when the server is gone."""
    assert outbox.append(Priority.METRIC, "StepMetrics", b"event")
    publisher = Publisher(outbox, FaultyTransport(*[ServerError("gone")] * 1000))
    assert not publisher.flush(60.0, retries=False)
    assert publisher.health()[1] == "server unreachable: gone"
    publisher.stop(5.0)


def test_a_new_server_gets_what_the_outbox_still_has(outbox: Outbox) -> None:
    """History is sent again to a server that is another one, and counted once."""
    first, second = MemoryTransport(), MemoryTransport()
    for transport in (first, first, second):
        assert outbox.append(Priority.REPORT, "EpochMetrics", b"event")
        publisher = Publisher(outbox, transport)
        assert publisher.flush(10.0)
        publisher.stop(5.0)
    assert (len(bodies(first)), len(bodies(second))) == (2, 3)
    assert outbox.count().delivered == 3


def test_a_server_that_is_away_moves_no_stream_of_the_run(outbox: Outbox) -> None:
    """The length of a wait is drawn from a stream of its own."""
    transport = FaultyTransport(*[ServerError("gone") for _ in range(3)])
    before = random.getstate()
    assert outbox.append(Priority.EMERGENCY, "Fault", b"x")
    publisher = Publisher(outbox, transport)
    assert publisher.flush(10.0)
    publisher.stop(5.0)
    assert bodies(transport) == [b"x"]
    assert random.getstate() == before


def test_its_breaker_is_open_from_the_third_failure_in_a_row_until_something_is_delivered(
    outbox: Outbox,
) -> None:
    """Two failures leave it closed, a third opens it, and a delivery closes it."""
    states: list[str] = []
    is_built = threading.Event()

    class Watched(FaultyTransport):
        def append(self, entries: Sequence[Entry]) -> list[str | None]:
            assert is_built.wait(10.0)
            states.append(publisher.health()[0])
            return super().append(entries)

    assert outbox.append(Priority.REPORT, "Fault", b"one")
    transport = Watched(*[ServerError("gone")] * 4)
    publisher = Publisher(outbox, transport)
    is_built.set()
    assert publisher.flush(10.0)
    publisher.stop(5.0)
    assert states == ["closed", "closed", "closed", "open", "open"]
    assert publisher.health()[0] == "closed"
