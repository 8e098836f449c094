"""Consumer groups: entries shared out among consumers, each until somebody has acknowledged it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import leyline
from oona.reading.admission import Admission, Gap, Ranges
from oona.streams import entry
from oona.streams.client import (
    ResponseError,
    close_client,
    is_no_stream,
    open_client,
    server_errors,
    unless_no_stream,
)
from oona.streams.dead_letters import DeadLetters, let_age
from oona.streams.entry import BEGINNING, StoredEntry
from oona.streams.names import stream_names
from oona.streams.reader import page_of, runs_of

MAX_DELIVERIES: Final = 5
IDLE_MS: Final = 60_000
_PAGE_ENTRIES: Final = 32
_BLOCK_S: Final = 0.2
"""Longest wait for the server at a time: well below what counts as a dead server."""
_DISCOVERY_INTERVAL_S: Final = 1.0


class Delivery(NamedTuple):
    """One entry, to be acknowledged once what is in it has been dealt with."""

    stream: bytes
    id: bytes
    envelopes: tuple[leyline.Envelope, ...]
    """Its events that are not in another delivery already; none if it was refused."""
    stored: StoredEntry
    """The entry as it was found: hostile."""


class ConsumerGroup:
    """One consumer of a group that reads the lanes of one run, or of every run on a server.

    An entry is delivered again, to whoever claims it, until it is acknowledged: at least once. An
    event comes once for as long as the one delivery that holds it is acknowledged. Every method
    may raise ServerError, and can be called again after it. A lane whose key is somebody else's is
    left out, and looked at again now and then; the others are read.

    Args:
        url: a redis://, rediss:// or unix:// URL.
        group: its name; groups do not take entries from one another.
        consumer: this consumer's name, its own within the group.
        run_id: the run; None for every run on the server, also those to come.
        kinds: event types that are wanted; entries that claim to hold none of them are
            acknowledged undecoded, and then gaps are not known. None: all.
        max_deliveries: how often an entry is tried before it becomes a dead letter.
        idle_ms: how long a consumer may keep an entry, by the server's clock, until another may
            claim it.
        seen: by run the sequences that the consumer knows already, as ranges with their ends
            included: they are not delivered again and are in no gap.
        clock: monotonic seconds.

    Raises:
        BusError: the URL is malformed, or no server answers there.
    """

    def __init__(
        self,
        url: str,
        group: str,
        consumer: str,
        *,
        run_id: str | None = None,
        kinds: Collection[str] | None = None,
        max_deliveries: int = MAX_DELIVERIES,
        idle_ms: int = IDLE_MS,
        seen: Mapping[str, Ranges] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._url, self._group, self._consumer = url, group, consumer
        self._run_id = run_id
        self._kinds = None if kinds is None else frozenset(kinds)
        self._idle_ms = idle_ms
        self._clock = clock
        self._admission = Admission(seen)
        self._known = frozenset(seen or ())
        self._streams: dict[bytes, str] = {}
        self._cursors: dict[bytes, bytes] = {}
        self._holders: dict[tuple[str, int], tuple[bytes, bytes]] = {}
        self._discovered_s: float | None = None
        self._client = open_client(url)
        self._dead_letters = DeadLetters(self._client, group, consumer, max_deliveries)

    @property
    def num_dead(self) -> int:
        """Entries that this consumer has made dead letters."""
        return self._dead_letters.num_buried

    @property
    def num_refused(self) -> int:
        """Entries and events skipped so far: damaged, hostile, or of another run."""
        return self._admission.num_refused

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """Ranges of sequences that are missing because a trim overtook the group.

        What was delivered and is not acknowledged yet counts as missing. Exact for the one
        consumer of a group that either began with the run or was told what it has `seen`.
        """
        return self._admission.gaps

    def read(self, timeout_s: float) -> list[Delivery]:
        """Take entries that no consumer of the group has had; none if none comes in time."""
        deadline = self._clock() + timeout_s
        while True:
            self._discover()
            left_s = deadline - self._clock()
            deliveries = self._read(max(0.0, min(_BLOCK_S, left_s)))
            if deliveries or left_s <= _BLOCK_S:
                return deliveries

    def claim(self) -> list[Delivery]:
        """Take over what consumers, this one too, had and did not acknowledge in time.

        What was delivered too often goes to the run's dead letters instead, with the reason.
        """
        self._discover()
        deliveries: list[Delivery] = []
        with server_errors(self._url):
            for stream, run_id in tuple(self._streams.items()):
                with self._missing_groups([stream]):
                    deliveries += self._claim(stream, run_id)
        return deliveries

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        """Say that deliveries have been dealt with; no consumer gets them again."""
        by_stream: dict[bytes, list[bytes]] = {}
        for delivery in deliveries:
            by_stream.setdefault(delivery.stream, []).append(delivery.id)
            for envelope in delivery.envelopes:
                self._admission.add(envelope)
                self._holders.pop((envelope.run_id, envelope.sequence), None)
        with server_errors(self._url):
            for stream, ids in by_stream.items():
                self._let_go(stream, ids)

    def close(self) -> None:
        """Let go of the server; what is not acknowledged can be claimed by others."""
        close_client(self._client)

    def _discover(self) -> None:
        """Find the streams, now and then, and make the group on those that lack it."""
        now_s = self._clock()
        if self._discovered_s is not None and now_s - self._discovered_s < _DISCOVERY_INTERVAL_S:
            return
        run_ids = [self._run_id] if self._run_id is not None else runs_of(self._client, self._url)
        for run_id in run_ids:
            for stream in stream_names(run_id).values():
                if stream not in self._streams and self._join(stream, run_id):
                    self._streams[stream] = run_id
        self._discovered_s = now_s

    def _join(self, stream: bytes, run_id: str) -> bool:
        """Make the group on a stream if it is not there; False if the key is somebody else's."""
        with server_errors(self._url):
            try:
                self._client.xgroup_create(stream, self._group, id="0", mkstream=True)
            except ResponseError as error:
                if is_no_stream(error):
                    return False
                if not str(error).startswith("BUSYGROUP"):
                    raise
            let_age(self._client, stream)
            groups = {found["name"]: found for found in self._client.xinfo_groups(stream)}
            last: bytes = groups[self._group.encode()]["last-delivered-id"]
        if last == b"0-0":
            self._cursors[stream] = BEGINNING
            # What an earlier stream of this name had delivered cannot be claimed any more.
            self._holders = {held: at for held, at in self._holders.items() if at[0] != stream}
        elif run_id in self._known:
            self._cursors[stream] = last
        return True

    def _read(self, timeout_s: float) -> list[Delivery]:
        if not self._streams:
            time.sleep(timeout_s)
            return []
        found: Any = None
        with server_errors(self._url):
            with self._missing_groups(tuple(self._streams)):
                found = self._client.xreadgroup(
                    *(self._group, self._consumer, dict.fromkeys(self._streams, ">")),
                    count=_PAGE_ENTRIES,
                    block=max(1, int(timeout_s * 1000)),
                )
            return [
                delivery
                for stream, items in found or ()
                for delivery in self._take(stream, [item for item in items if item[1]])
            ]

    def _claim(self, stream: bytes, run_id: str) -> list[Delivery]:
        deliveries: list[Delivery] = []
        start = b"0-0"
        while True:
            start, items, *gone = self._client.xautoclaim(
                *(stream, self._group, self._consumer, self._idle_ms),
                start_id=start,
                count=_PAGE_ENTRIES,
            )
            # Of a trimmed entry there are no fields (Redis 6), or only the id, apart.
            page = [entry.stored(stream, *item) for item in items if item[1]]
            if (len(page) < len(items) or any(gone)) and stream in self._cursors:
                self._admission.lose(run_id)
            page = self._dead_letters.sort_out(run_id, page)
            deliveries += self._open(page)
            if start == b"0-0":
                return deliveries

    @contextmanager
    def _missing_groups(self, streams: Iterable[bytes]) -> Iterator[None]:
        """Look anew for streams of which one has gone, or has become somebody else's key."""
        try:
            yield
        except ResponseError as error:
            if not str(error).startswith("NOGROUP") and not is_no_stream(error):
                raise
            for stream in streams:
                del self._streams[stream]
            self._discovered_s = None

    def _take(self, stream: bytes, items: list[Any]) -> list[Delivery]:
        """Open entries that nobody had; those of unwanted kinds are done with at once."""
        cursor = self._cursors.get(stream)
        if items and self._kinds is None and cursor is not None:
            page = page_of(self._client, stream, cursor, items)
        else:
            page = [entry.stored(stream, *item) for item in items]
        if items:
            self._cursors[stream] = items[-1][0]
        if self._kinds is not None:
            unwanted = [e for e in page if (k := entry.kinds_of(e.kinds)) and not k & self._kinds]
            if unwanted:
                self._let_go(stream, [e.id for e in unwanted])
                page = [e for e in page if e not in unwanted]
        return self._open(page)

    def _let_go(self, stream: bytes, ids: Iterable[bytes]) -> None:
        with unless_no_stream():  # what is no more need not be acknowledged
            self._client.xack(stream, self._group, *ids)

    def _open(self, page: list[StoredEntry]) -> list[Delivery]:
        """Decode entries; an event is in the first delivery that had it, as often as that comes."""
        deliveries: list[Delivery] = []
        for stored in page:
            place = (stored.stream, stored.id)
            envelopes = tuple(
                envelope
                for envelope in self._admission.open(stored, self._streams[stored.stream])
                if not self._admission.has(envelope)
                and self._holders.setdefault((envelope.run_id, envelope.sequence), place) == place
            )
            deliveries.append(Delivery(stored.stream, stored.id, envelopes, stored))
        return deliveries
