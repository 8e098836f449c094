"""The bus: takes events from any thread in microseconds and sees to it that they are published."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

import leyline
from oona import run_file
from oona.outbox import file as outbox_file
from oona.outbox.outbox import DEFAULT_RING_SIZE_BYTES, Outbox
from oona.publishing.publisher import DELIVERING, Publisher
from oona.servers import url as bus_url
from oona.servers.embedded import EmbeddedServer, remove_leftover
from oona.statistics import BusStatistics
from oona.streams.memory import MemoryTransport
from oona.streams.transport import NoServer, ServerError, Transport

_LOG_NAME: Final = "valkey.log"
_STOP_TIMEOUT_S: Final = 1.5
"""Longest that the publisher needs to stop: one send that times out."""
_READERS_TIMEOUT_S: Final = 0.5
"""How long an embedded server outlives the run for readers that have not let go of it."""


class _Parts(NamedTuple):
    """What an open bus is made of."""

    outbox: Outbox
    publisher: Publisher
    server: EmbeddedServer | None
    warnings: tuple[str, ...]


class Bus:
    """The telemetry of one run, made by `Bus.open`; `oona.read` reads it."""

    def __init__(
        self,
        run_id: str,
        url: str,
        parts: _Parts | None,
        clocks: tuple[Callable[[], int], Callable[[], int]],
    ):
        self.url = bus_url.without_password(url)
        """Where readers find the events, without the password."""
        self._run_id = run_id
        self._parts = parts
        self._monotonic_ns, self._wall_ns = clocks
        self._buffer = bytearray()
        self._is_offering = False
        self._postponed: deque[leyline.Event] = deque()
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
            monotonic_ns: the clock of Envelope.monotonic_ns.
            wall_ns: the clock of Envelope.wall_ns.

        Raises:
            BusError: the URL is malformed.
            ConfigError: the run id or the ring size is out of range.
        """
        bus_url.check_url(url)
        if not 0 < len(run_id) <= leyline.limits.NAME_LENGTH:
            raise leyline.ConfigError(
                f"run id of {len(run_id)} characters refused: it may have 1 to "
                f"{leyline.limits.NAME_LENGTH}"
            )
        clocks = (monotonic_ns, wall_ns)
        if url == "off":
            return cls(run_id, url, None, clocks)
        run_dir = Path(run_dir)
        outbox = Outbox(run_dir / outbox_file.FILE_NAME, ring_size_bytes)
        server, transport, url = _reach(url, run_id, run_dir)
        warnings = list(outbox.warnings)
        try:
            address = run_file.RunFile(bus_url.without_password(url), run_id)
            run_file.write(run_dir, address)
        except OSError as error:
            warnings.append(f"readers cannot find the bus by its run directory: {error}")
        parts = _Parts(outbox, Publisher(outbox, transport), server, tuple(warnings))
        return cls(run_id, url, parts, clocks)

    def offer(self, event: leyline.Event) -> bool:
        """Queue an event; False if it was dropped, which is counted. Never blocks, never raises.

        An event that cannot be encoded, or whose lane is full of events that wait, is dropped.
        """
        parts = self._parts
        if parts is None:
            return False
        with parts.outbox.lock:
            if self._is_offering:  # by a signal handler that interrupted this very thread's offer
                self._postponed.append(event)
                return True
            self._is_offering = True
            try:
                accepted = self._append(parts.outbox, event)
            finally:
                self._is_offering = False
        self._offer_postponed()
        return accepted

    def statistics(self) -> BusStatistics:
        """Count what has become of every event; after `close`, what was so then."""
        self._offer_postponed()
        parts = self._parts
        return self._last if parts is None else self._count(parts, parts.publisher.state)

    def health(self) -> tuple[str, str]:
        """The publisher's breaker, "open" or "closed", and its state in words; costs nothing."""
        parts = self._parts
        if parts is None:
            return self._last.breaker, self._last.state
        return parts.publisher.breaker, parts.publisher.state

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
            parts = self._parts
            if parts is None:
                return self._last
            self._offer_postponed()
            parts.publisher.flush(timeout_s, retries=False)
            parts.publisher.stop(_STOP_TIMEOUT_S)
            with parts.outbox.lock:
                self._parts = None
            if parts.server is not None:
                _end(parts.server)
            state = parts.publisher.state
            self._last = self._count(parts, "closed" if state == DELIVERING else state)
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

    def _append(self, outbox: Outbox, event: leyline.Event) -> bool:
        if self._parts is None:
            return False  # closed meanwhile
        type_name = type(event).__name__
        lane = leyline.PRIORITIES.get(type(event))
        if lane is None:
            outbox.drop(type_name)
            return False
        envelope = leyline.Envelope(
            run_id=self._run_id,
            sequence=outbox.next_sequence(),
            priority=lane,
            monotonic_ns=self._monotonic_ns(),
            wall_ns=self._wall_ns(),
            event=event,
        )
        try:
            leyline.encode_into(envelope, self._buffer)
        except (leyline.ContractError, BufferError, MemoryError):
            outbox.drop(type_name)
            return False
        return outbox.append(lane, type_name, self._buffer)

    def _offer_postponed(self) -> None:
        while self._postponed:
            self.offer(self._postponed.popleft())

    def _count(self, parts: _Parts, state: str) -> BusStatistics:
        ledger = parts.outbox.count()
        return BusStatistics(
            offered=ledger.offered,
            delivered=ledger.delivered,
            dropped=ledger.dropped,
            queued=ledger.queued,
            dropped_by_type=ledger.dropped_by_type,
            state=state,
            url=self._last.url,
            breaker=parts.publisher.breaker,
            num_faults=parts.publisher.num_faults,
            warnings=parts.warnings,
        )


def _reach(url: str, run_id: str, run_dir: Path) -> tuple[EmbeddedServer | None, Transport, str]:
    """Start or choose the server: itself if it is ours, the way to it, and its URL."""
    if url == "memory":
        return None, MemoryTransport(), url
    # Late: importing redis takes 0.1 s, which `esper --help` must not pay.
    from oona.streams.redis_streams import RedisTransport

    if url != "embedded":
        return None, RedisTransport(url, run_id), url
    earlier = run_file.read(run_dir)
    if earlier is not None:
        remove_leftover(earlier.url)
    try:
        server = EmbeddedServer(run_dir / _LOG_NAME)
    except ServerError as error:
        return None, NoServer(str(error)), url
    return server, RedisTransport(server.url, run_id), server.url


def _end(server: EmbeddedServer) -> None:
    """Stop our server, after its readers have had what they follow."""
    from oona.streams.redis_streams import wait_for_readers  # late, as above

    with contextlib.suppress(ServerError):  # it is gone already
        wait_for_readers(server.url, _READERS_TIMEOUT_S)
    server.stop()


def _leave(bus: Bus | None) -> None:
    """In a forked child: the parent alone writes to the outbox."""
    if bus is not None:
        bus._parts = None
