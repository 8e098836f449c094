"""Entries of known content, put into the streams of a server."""

from __future__ import annotations

from collections.abc import Iterable

import leyline
from leyline import Priority
from oona.streams import entry
from oona.streams.writer import RedisTransport

STEP = leyline.StepMetrics(step=1, loss=0.5)


def body(sequence: int, event: leyline.Event = STEP, run_id: str = "run") -> bytes:
    lane = leyline.PRIORITIES[type(event)]
    return leyline.encode(
        leyline.Envelope(
            run_id=run_id,
            sequence=sequence,
            priority=lane,
            monotonic_ns=sequence * 1_000_000_007,
            wall_ns=1_700_000_000_000_000_000 + sequence,
            event=event,
        )
    )


def publish(
    url: str, *entries: Iterable[int], event: leyline.Event = STEP, run_id: str = "run"
) -> None:
    """Append one entry for each group of sequences, to the lane of the event."""
    lane: Priority = leyline.PRIORITIES[type(event)]
    transport = RedisTransport(url, run_id)
    transport.connect()
    packed = [entry.pack(lane, [body(n, event, run_id) for n in group]) for group in entries]
    assert transport.append(packed) == [None] * len(packed)
    transport.close()
