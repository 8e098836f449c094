"""The intake: where the training path hands over an event, encoded and queued in microseconds."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import leyline
from oona.outbox.outbox import Outbox

_LOG = logging.getLogger("esper")
_TELL_INTERVAL_NS: Final = 1_000_000_000
"""How long drops are gathered before an event tells of them."""


class Intake:
    """Gives every event its sequence and times, and puts it into the ring of its lane.

    Args:
        outbox: takes the events; this is the only writer to it.
        run_id: of every envelope.
        monotonic_ns: the clock of Envelope.monotonic_ns.
        wall_ns: the clock of Envelope.wall_ns.
    """

    def __init__(
        self,
        outbox: Outbox,
        run_id: str,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        wall_ns: Callable[[], int] = time.time_ns,
    ):
        self.refusals: dict[str, str] = {}
        """Why events of a type were refused at the door, by type: the last of each."""
        self._outbox = outbox
        self._run_id = run_id
        self._monotonic_ns = monotonic_ns
        self._wall_ns = wall_ns
        self._body = bytearray()
        self._is_offering = False
        self._is_closed = False
        self._postponed: deque[leyline.Event] = deque()
        self._untold_since_ns: int | None = None

    def offer(self, event: leyline.Event) -> bool:
        """Queue an event; False if it was dropped, which is counted. Never blocks, never raises."""
        accepted = self._offer(event)
        if self._postponed:
            self.offer_postponed()
        return accepted

    def offer_postponed(self) -> None:
        """Queue what a signal handler offered while an offer was under way."""
        for _ in range(len(self._postponed)):  # what comes meanwhile waits; others may do this too
            try:
                event = self._postponed.popleft()
            except IndexError:
                return
            self._offer(event)

    def _offer(self, event: leyline.Event) -> bool:
        with self._outbox.lock:
            if self._is_offering:  # by a signal handler that interrupted this very thread's offer
                self._postponed.append(event)
                return True
            self._is_offering = True
            try:
                accepted = self._append(event)
                if self._untold_since_ns is not None:
                    self._tell_drops(_TELL_INTERVAL_NS)
            finally:
                self._is_offering = False
        return accepted

    def close(self) -> None:
        """Tell of drops not yet told of, and take nothing more; the outbox can be read on."""
        self.offer_postponed()
        with self._outbox.lock:
            if self._untold_since_ns is not None and not self._is_closed:
                self._tell_drops(0)
            self._is_closed = True

    def _append(self, event: leyline.Event) -> bool:
        if self._is_closed:
            return False
        type_name = type(event).__name__
        lane = leyline.PRIORITIES.get(type(event))
        now_ns = self._monotonic_ns()
        outbox = self._outbox
        if lane is None:
            outbox.drop(type_name)
            return self._note_drop(now_ns)
        envelope = leyline.Envelope(
            run_id=self._run_id,
            sequence=outbox.next_sequence(),
            priority=lane,
            monotonic_ns=now_ns,
            wall_ns=self._wall_ns(),
            event=event,
        )
        try:
            header = leyline.encode_body(envelope, self._body)
        except (leyline.ContractError, BufferError, MemoryError) as error:
            self._refuse(type_name, str(error))
            outbox.drop(type_name)
            return self._note_drop(now_ns)
        if outbox.append(lane, type_name, header, self._body):
            return True
        size_bytes, room_bytes = len(header) + len(self._body), outbox.rings[lane].room_bytes
        if size_bytes > room_bytes:
            self._refuse(
                type_name,
                f"{type_name} of {size_bytes} bytes refused by the bus: the outbox's lane "
                f"{lane.name} holds events of up to {room_bytes} bytes; split it",
            )
        return self._note_drop(now_ns)

    def _note_drop(self, now_ns: int) -> bool:
        if self._untold_since_ns is None:
            self._untold_since_ns = now_ns
        return False

    def _refuse(self, type_name: str, why: str) -> None:
        """Keep the reason, and say it once per type: a flood of them must not flood the log."""
        if type_name not in self.refusals:
            _LOG.warning("telemetry: %s", why)
        self.refusals[type_name] = why

    def _tell_drops(self, after_ns: int) -> None:
        """Publish the counts of drops, once they are so old; again later if that is dropped too."""
        since_ns = self._untold_since_ns
        if since_ns is None or self._monotonic_ns() - since_ns < after_ns:
            return
        self._untold_since_ns = None
        self._append(leyline.DropsCounted(dropped_by_type=self._outbox.num_dropped()))
