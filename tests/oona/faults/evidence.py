"""What a bus under faults must be able to show: an exact ledger, and every event at least once."""

from __future__ import annotations

import time
from collections.abc import Callable

import redis

import leyline
import oona
from leyline import Priority
from oona.streams import entry
from oona.streams.names import stream_names

FAULT = leyline.Fault(epoch=1, step=1, where="here", what="broken", action="mended")


def offer(bus: oona.Bus, num: int) -> None:
    """Offer metrics, and a fault for every tenth of them."""
    for step in range(num):
        assert bus.offer(leyline.StepMetrics(step=step, loss=0.5) if step % 10 else FAULT)


def exact(bus: oona.Bus) -> oona.BusStatistics:
    """The statistics of a bus that nobody offers to now: the ledger holds, nothing was dropped."""
    counts = bus.statistics()
    assert counts.offered == counts.delivered + counts.dropped + counts.queued
    assert counts.dropped == 0, counts.dropped_by_type
    return counts


def wait_for(condition: Callable[[], bool], bus: oona.Bus, timeout_s: float = 20.0) -> None:
    """Wait until something is so, while the publisher tries without waiting for its pauses."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, bus.statistics()
        bus.flush(0.02)


def arrived(client: redis.Redis, run_id: str = "run") -> dict[int, leyline.Envelope]:
    """Every event that lies in a run's streams; if one is there twice, both are the same bytes."""
    found: dict[int, bytes] = {}
    events: dict[int, leyline.Envelope] = {}
    streams = stream_names(run_id)
    for lane in Priority:
        for _, fields in client.xrange(streams[lane]):
            for body in entry.unpack(fields[b"num_events"], fields[b"envelopes"]):
                envelope = leyline.decode(body)
                assert isinstance(envelope, leyline.Envelope)
                assert found.setdefault(envelope.sequence, body) == body
                events[envelope.sequence] = envelope
    return events
