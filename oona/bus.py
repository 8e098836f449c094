"""The bus: takes events from any thread in microseconds and sees to it that they are published."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

import leyline
from oona.intake import Intake
from oona.opening import PUBLISHERS, Parts, end_server, open_parts
from oona.outbox.outbox import DEFAULT_RING_SIZE_BYTES
from oona.publishing.status import DELIVERING
from oona.servers import url as bus_url
from oona.statistics import BusStatistics

_STOP_TIMEOUT_S: Final = 1.5
"""Longest that the publisher needs to stop: one send that times out."""


class Bus:
    """The telemetry of one run, made by `Bus.open`; `oona.read` reads it."""

    def __init__(self, url: str, parts: Parts | None, intake: Intake | None):
        self.url = bus_url.without_password(url)
        """Where readers find the events, without the password."""
        self._parts = parts
        self._intake = intake
        self._close_lock = threading.RLock()
        self._last = BusStatistics(state="off", url=bus_url.redact(url))
        reference = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _leave(reference()))

    @classmethod
    def open(
        cls,
        run_dir: Path | str,
        run_id: str,
        url: str = "embedded",
        *,
        ring_size_bytes: int = DEFAULT_RING_SIZE_BYTES,
        publisher: str = "thread",
        bytes_per_s: int | None = None,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> Self:
        """Open the bus of a run directory; what an earlier process left there is sent first.

        Call it in the main thread, or in one that lives as long as the run: the embedded server
        ends with the thread that started it. A directory has one open bus at a time, which the
        caller's lock on the run sees to. A server that cannot be reached or started is no error:
        events wait in the outbox and `statistics` says why.

        Args:
            run_dir: holds outbox.bin, bus.json and the log of the embedded server.
            run_id: names the streams and, with the sequence, every event.
            url: "embedded", "memory", "off", or a redis://, rediss:// or unix:// URL.
            ring_size_bytes: space of each of the four lanes; an outbox keeps what it began with.
            publisher: "thread", or "process" for one beside the trainer, which takes less of its
                time when there are very many events.
            bytes_per_s: most that is sent, on average over a second; None for no limit.
            monotonic_ns: the clock of Envelope.monotonic_ns.
            wall_ns: the clock of Envelope.wall_ns.

        Raises:
            BusError: the URL is malformed.
            ConfigError: the run id, the ring size, the publisher or the limit is out of range.
        """
        bus_url.check_url(url)
        if not 0 < len(run_id) <= leyline.limits.NAME_LENGTH or not run_id.isprintable():
            raise leyline.ConfigError(
                f"run id of {len(run_id)} characters refused: it may have 1 to "
                f"{leyline.limits.NAME_LENGTH}, all of them printable"
            )
        if publisher not in PUBLISHERS:
            raise leyline.ConfigError(
                f"publisher {publisher!r} refused: it may be {' or '.join(PUBLISHERS)}"
            )
        if bytes_per_s is not None and bytes_per_s < 1:
            raise leyline.ConfigError(f"limit of {bytes_per_s} bytes per s refused: at least 1")
        if url == "off":
            return cls(url, None, None)
        parts = open_parts(
            *(Path(run_dir), run_id, url),
            ring_size_bytes=ring_size_bytes,
            publisher=publisher,
            bytes_per_s=bytes_per_s,
        )
        return cls(parts.url, parts, Intake(parts.outbox, run_id, monotonic_ns, wall_ns))

    def offer(self, event: leyline.Event) -> bool:
        """Queue an event; False if it was dropped, which is counted. Never blocks, never raises.

        An event that cannot be encoded, or whose lane is full of events that wait, is dropped.
        Drops are told of by an event of their own, a second later at the earliest.
        """
        intake = self._intake
        return intake is not None and intake.offer(event)

    def statistics(self) -> BusStatistics:
        """Count what has become of every event; after `close`, what was so then."""
        parts, intake = self._parts, self._intake
        if parts is None or intake is None:
            return self._last
        intake.offer_postponed()
        return self._count(parts, intake)

    def report(self, epoch: int) -> leyline.BusReport | None:
        """The counts and latencies at the end of an epoch, as an event; None if the bus is off.

        Costs tens of microseconds, however many events wait.
        """
        parts = self._parts
        if parts is None:
            return None
        tally, operations = parts.outbox.tally(), parts.publisher.status().operations
        return leyline.BusReport(
            epoch=epoch,
            offered=tally.offered,
            delivered=tally.delivered,
            dropped=tally.dropped,
            queued=tally.queued,
            dropped_by_type=tally.dropped_by_type,
            latency_ms={
                name: (known.p50_ms, known.p95_ms, known.p99_ms)
                for name, known in operations.items()
                if known.count
            },
        )

    def health(self) -> tuple[str, str]:
        """The publisher's breaker, "open" or "closed", and its state in words; costs nothing."""
        parts = self._parts
        return (self._last.breaker, self._last.state) if parts is None else parts.publisher.health()

    def flush(self, timeout_s: float) -> bool:
        """Wait until the server has acknowledged everything; False if it has not in time."""
        parts = self._parts
        return parts is None or parts.publisher.flush(timeout_s)

    def close(self, timeout_s: float = 2.0) -> BusStatistics:
        """Send what can be sent, stop the publisher and the embedded server, and count.

        What an unreachable server did not get stays in the outbox for the next `Bus.open`. The
        embedded server waits up to half a second for readers, which let go of it once they have
        the whole run. Takes at most `timeout_s`, that and the time of one send; a second call
        changes nothing.
        """
        with self._close_lock:
            parts, intake = self._parts, self._intake
            if parts is None or intake is None:
                return self._last
            intake.close()
            parts.publisher.flush(timeout_s, retries=False)
            parts.publisher.stop(_STOP_TIMEOUT_S)
            self._parts = None
            if parts.server is not None:
                end_server(parts.server)
            self._last = self._count(parts, intake)
            if self._last.state == DELIVERING:
                self._last = msgspec.structs.replace(self._last, state="closed")
            return self._last

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _count(self, parts: Parts, intake: Intake) -> BusStatistics:
        ledger, status = parts.outbox.count(), parts.publisher.status()
        return BusStatistics(
            offered=ledger.offered,
            delivered=ledger.delivered,
            dropped=ledger.dropped,
            queued=ledger.queued,
            dropped_by_type=ledger.dropped_by_type,
            state=status.state,
            url=self._last.url,
            breaker=status.breaker,
            num_faults=status.num_faults,
            operations=status.operations,
            warnings=(*parts.warnings, *intake.refusals.values()),
        )


def _leave(bus: Bus | None) -> None:
    """In a forked child: the parent alone writes to the outbox."""
    if bus is not None:
        bus._parts = bus._intake = None
        bus._close_lock = threading.RLock()  # another thread may have held it at the fork
