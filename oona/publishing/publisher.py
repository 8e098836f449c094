"""The one thread that takes events from the outbox to the server."""

from __future__ import annotations

import random
import threading
import time
from typing import Final

import leyline
from leyline import Priority
from oona.metrics.operations import Operations
from oona.outbox.outbox import Outbox
from oona.outbox.ring import Batch
from oona.publishing.rate_limit import RateLimit
from oona.publishing.status import CONNECTING, DELIVERING, PublisherStatus
from oona.streams import entry
from oona.streams.transport import ServerError, Transport

_POLL_INTERVAL_S: Final = 0.05
"""How often the outbox is looked at: waking a thread would cost `offer` a system call."""
_FIRST_BACKOFF_S: Final = 0.05
_LONGEST_BACKOFF_S: Final = 5.0
_MAX_DOUBLINGS: Final = 10
_FAILURES_TO_OPEN: Final = 3
_ROUND_ENTRIES: Final = 8
_SMALLEST_ENTRY_BYTES: Final = 4096
_SENDS_TO_GROW: Final = 8
"""Sends that must succeed in a row before more is tried at once."""
_LANES: Final = tuple(sorted(Priority, reverse=True))
"""Emergency first."""


class _RefusedError(ServerError):
    """The server answers, but does not take what it was sent."""


class _ClaimedError(leyline.BusError):
    """Another sender has the claim on the outbox."""


class Publisher:
    """Sends what the outbox holds, in batches, until stopped; only its thread uses the server.

    An event counts as delivered only after the server has acknowledged it, so a connection that
    breaks means that some are sent twice. A server that turns out to be another one is sent
    everything that the outbox still has. While another sender has the claim on the outbox, this
    one waits for it.

    Args:
        outbox: what to send.
        transport: the way to the server.
        bytes_per_s: most that is sent, on average over a second; None for no limit.
    """

    def __init__(self, outbox: Outbox, transport: Transport, *, bytes_per_s: int | None = None):
        self._outbox = outbox
        self._transport = transport
        self._rate_limit = RateLimit(bytes_per_s)
        self._most_entries = self._round_entries = _ROUND_ENTRIES if bytes_per_s is None else 1
        self._entry_size_bytes = entry.ENTRY_SIZE_BYTES
        self._operations = Operations()
        self._server: str | None = None
        self._last_server: str | None = None
        self._sent = dict.fromkeys(Priority, 0)
        self._state = CONNECTING
        self._num_faults = 0
        self._num_failures = 0
        self._failures_in_a_row = self._sends_in_a_row = 0
        # A stream of its own: the run's must not move because a server is away.
        self._jitter = random.Random()  # noqa: S311 -- jitter, not a secret
        self._is_stopping = False
        self._wake = threading.Event()
        self._progress = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="oona-publisher", daemon=True)
        self._thread.start()

    def health(self) -> tuple[str, str]:
        """The breaker, "open" or "closed", and the state in words; costs nothing.

        The breaker is open from the third failure in a row until something is delivered. While it
        is, every attempt waits for the backoff first, and one attempt decides.
        """
        is_open = self._failures_in_a_row >= _FAILURES_TO_OPEN
        return ("open" if is_open else "closed"), self._state

    def status(self) -> PublisherStatus:
        """How it is now."""
        breaker, state = self.health()
        return PublisherStatus(
            state=state,
            breaker=breaker,
            num_faults=self._num_faults,
            num_failures=self._num_failures,
            is_done=self._is_done(),
            operations=self._operations.summary(),
        )

    def flush(self, timeout_s: float, *, retries: bool = True) -> bool:
        """Wait until the server has acknowledged everything; False if it has not in time.

        Args:
            timeout_s: how long to wait at most.
            retries: wait on while the server is unreachable; otherwise one attempt decides.
        """
        with self._progress:
            before = self._num_failures
            self._wake.set()
            self._progress.wait_for(
                lambda: self._is_done() or (not retries and self._num_failures > before),
                timeout_s,
            )
        return self._outbox.is_drained()

    def wake(self) -> None:
        """Look at the outbox now, whatever the backoff."""
        self._wake.set()

    def stop(self, timeout_s: float) -> None:
        """Stop after the send that is under way, and wait for that."""
        self._is_stopping = True
        self._wake.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._is_stopping:
            try:
                self._drain()
            except _RefusedError as error:
                self._fail(f"server refuses events: {error}")
            except _ClaimedError as error:
                self._fail(str(error))
            except leyline.BusError as error:
                self._fail(f"server unreachable: {error}")
            except Exception as error:  # the publisher wall: training outlives any fault of it
                self._num_faults += 1
                self._fail(f"publisher fault: {error!r}")
            with self._progress:
                self._progress.notify_all()
            self._wake.wait(self._pause_s())
            self._wake.clear()
        self._transport.close()
        self._outbox.claim.release()

    def _drain(self) -> None:
        if self._server is None:
            self._connect()
        while not self._is_stopping and (batches := self._take()):
            self._rest(self._send(batches))
        self._state = DELIVERING
        self._failures_in_a_row = 0
        if self._is_done() and self._outbox.server != self._server:
            self._outbox.server = self._server or ""

    def _connect(self) -> None:
        if not self._outbox.claim.take():
            raise _ClaimedError("another process is sending this run's events")
        with self._operations.timed("connect"):
            server = self._transport.connect()
        if server != self._last_server:  # else it goes on where it was
            known = server == self._outbox.server
            for lane, ring in self._outbox.rings.items():
                self._sent[lane] = ring.state.tail if known else ring.state.oldest
        self._server = self._last_server = server

    def _rest(self, size_bytes: int) -> None:
        """Keep to the rate limit, unless the bus is closing."""
        deadline = time.monotonic() + self._rate_limit.note(size_bytes)
        while not self._is_stopping and (left_s := deadline - time.monotonic()) > 0:
            time.sleep(min(left_s, _POLL_INTERVAL_S))

    def _take(self) -> list[tuple[Priority, Batch]]:
        batches: list[tuple[Priority, Batch]] = []
        for lane in _LANES:
            position = self._sent[lane]
            while len(batches) < self._round_entries:
                ring = self._outbox.rings[lane]
                batch = ring.take(position, entry.ENTRY_RECORDS, self._entry_size_bytes)
                if batch is None:
                    break
                batches.append((lane, batch))
                position = batch.end
        return batches

    def _send(self, batches: list[tuple[Priority, Batch]]) -> int:
        """Send batches and move past what was acknowledged; returns the bytes sent."""
        entries = [
            entry.pack(lane, [record.body for record in batch.records])
            for lane, batch in batches
            if batch.records
        ]
        with self._operations.timed("send"):
            answers = iter(self._transport.append(entries) if entries else ())
        refused: dict[Priority, str] = {}
        for lane, batch in batches:
            refusal = next(answers) if batch.records else None
            if refusal is not None:
                refused.setdefault(lane, refusal)
            if lane not in refused:  # what follows a refused batch is sent again with it
                self._outbox.acknowledge(lane, batch)
                self._sent[lane] = batch.end
        if refused:
            raise _RefusedError(next(iter(refused.values())))
        self._failures_in_a_row = 0
        self._sends_in_a_row += 1
        if self._sends_in_a_row % _SENDS_TO_GROW == 0:
            self._entry_size_bytes = min(2 * self._entry_size_bytes, entry.ENTRY_SIZE_BYTES)
            self._round_entries = min(2 * self._round_entries, self._most_entries)
        return sum(len(item.payload) for item in entries)

    def _fail(self, state: str) -> None:
        self._state = state
        self._server = None
        self._num_failures += 1
        self._failures_in_a_row += 1
        self._sends_in_a_row = 0
        # On a slow line only little gets through before the answer counts as missing.
        self._entry_size_bytes = max(self._entry_size_bytes // 4, _SMALLEST_ENTRY_BYTES)
        self._round_entries = 1

    def _pause_s(self) -> float:
        if not self._failures_in_a_row:
            return _POLL_INTERVAL_S
        doublings = min(self._failures_in_a_row - 1, _MAX_DOUBLINGS)
        backoff_s = min(_FIRST_BACKOFF_S * (1 << doublings), _LONGEST_BACKOFF_S)
        return backoff_s * (1 + self._jitter.random()) / 2

    def _is_done(self) -> bool:
        """Nothing waits, and a server that can be reached has been sent the history too."""
        if not self._outbox.is_drained():
            return False
        return self._failures_in_a_row > 0 or (
            self._server is not None
            and all(
                self._sent[lane] >= ring.state.head for lane, ring in self._outbox.rings.items()
            )
        )
