"""The envelopes of one run or of all runs on a server: decoded, deduplicated and in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Final, Self

import leyline
from oona.reading.admission import Admission, Gap
from oona.streams.entry import BEGINNING, StoredEntry
from oona.streams.transport import ServerError

if TYPE_CHECKING:
    from oona.streams.reader import RedisReader

_WAIT_S: Final = 0.2
"""Longest wait for the server's news at a time: well below what counts as a dead server."""
_DISCOVERY_INTERVAL_S: Final = 1.0
_AFTERMATH_S: Final = 0.5
"""How long events are still expected after a run's end: the emergency lane overtakes others."""


class Envelopes(Iterator[leyline.Envelope]):
    """What `oona.read` returns.

    Args:
        server: where to read streams, if anywhere.
        run_id: the one run to read; None for every run on the server.
        bodies: encoded envelopes from an outbox, that belong to the run too.
        num_damaged: records of the outbox that could not be read.
        problem: why there is no server, if there should be one.
        follow: wait for more after all that is there.
        is_live: asked while nothing new comes: whether anything still may.
        deadline: on the monotonic clock, when to stop following.
    """

    def __init__(
        self,
        server: RedisReader | None,
        *,
        run_id: str | None = None,
        bodies: Iterable[bytes] = (),
        num_damaged: int = 0,
        problem: str = "",
        follow: bool = False,
        is_live: Callable[[], bool] | None = None,
        deadline: float | None = None,
    ):
        self.problem = problem
        """Why the server that a run directory names was not read; empty if it was, or has ended
        with its run, or if there is none."""
        self._server = server
        self._run_id = run_id
        self._bodies = bodies
        self._num_damaged = num_damaged
        self._follow = follow
        self._is_live = is_live
        self._deadline = deadline
        self._streams: dict[bytes, str] = {}
        self._cursors: dict[bytes, bytes] = {}
        self._admission = Admission()
        self._lifecycle: dict[str, leyline.Envelope] = {}
        self._envelopes = self._read()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> leyline.Envelope:
        return next(self._envelopes)

    @property
    def num_refused(self) -> int:
        """Entries, records and events skipped so far: damaged, hostile, or of another run."""
        return self._num_damaged + self._admission.num_refused

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """Exact ranges of sequences that are missing because a trim overtook the reader.

        A hole may also be an event that the run dropped and counted: see `Gap`. While lanes are
        still being read, what will come from another one is in it too.
        """
        return self._admission.gaps

    def close(self) -> None:
        """Let go of the server; reading to the end does it too."""
        self._envelopes.close()
        if self._server is not None:
            self._server.close()

    def _read(self) -> Generator[leyline.Envelope, None, None]:
        yield from self._backlog()
        if self._server is not None:
            try:
                if self._follow:
                    yield from self._news(self._server)
            except ServerError:
                pass  # gone: so ends what can be followed
            finally:
                self._server.close()

    def _backlog(self) -> Iterator[leyline.Envelope]:
        """Everything there is now, run by run, in order of sequence."""
        runs: dict[str, list[leyline.Envelope]] = {}
        if self._server is not None:
            try:
                self._discover(self._server)
                for stream in self._streams:
                    for stored in self._server.entries(stream):
                        for envelope in self._unpack(stored):
                            runs.setdefault(envelope.run_id, []).append(envelope)
            except ServerError as error:
                if self._run_id is None and not self._follow:
                    raise
                self.problem = str(error)
        for envelope in self._new(self._admission.decode(self._bodies, None)):
            runs.setdefault(envelope.run_id, []).append(envelope)
        for envelopes in runs.values():
            yield from sorted(envelopes, key=_sequence)

    def _news(self, server: RedisReader) -> Iterator[leyline.Envelope]:
        """What arrives from now on, until it is over."""
        discovered = arrived = time.monotonic()
        while True:
            now = time.monotonic()
            if self._has_ended(now - arrived) or (self._deadline and now >= self._deadline):
                return
            if now - discovered >= _DISCOVERY_INTERVAL_S or not self._streams:
                self._discover(server)
                discovered = now
            # Asked first: what was sent last is then found below.
            is_live = self._is_live is None or self._is_live()
            if not self._streams:
                if not is_live:
                    return
                time.sleep(_WAIT_S)
                continue
            left_s = _WAIT_S if self._deadline is None else min(_WAIT_S, self._deadline - now)
            after = {stream: self._cursors[stream] for stream in self._streams}
            stored_entries = server.wait(after, left_s)
            if stored_entries:
                arrived = time.monotonic()
            elif not is_live:
                return
            envelopes = [envelope for stored in stored_entries for envelope in self._unpack(stored)]
            yield from sorted(envelopes, key=_sequence)

    def _discover(self, server: RedisReader) -> None:
        """Find the streams to read; what was one and is somebody else's key now is left out."""
        known = self._run_id
        runs = server.streams() if known is None else {known: server.streams_of(known)}
        self._streams = {s: run_id for s, run_id in self._streams.items() if run_id not in runs}
        for run_id, streams in runs.items():
            for stream in streams:
                self._streams[stream] = run_id
                self._cursors.setdefault(stream, BEGINNING)

    def _unpack(self, stored: StoredEntry) -> list[leyline.Envelope]:
        self._cursors[stored.stream] = stored.id
        return self._new(self._admission.open(stored, self._streams[stored.stream]))

    def _new(self, envelopes: list[leyline.Envelope]) -> list[leyline.Envelope]:
        """Leave out what was seen already."""
        new = [envelope for envelope in envelopes if self._admission.add(envelope)]
        for envelope in new:
            self._note_lifecycle(envelope)
        return new

    def _note_lifecycle(self, envelope: leyline.Envelope) -> None:
        if isinstance(envelope.event, leyline.RunStarted | leyline.RunEnded):
            known = self._lifecycle.get(envelope.run_id)
            if known is None or known.sequence < envelope.sequence:
                self._lifecycle[envelope.run_id] = envelope

    def _has_ended(self, quiet_s: float) -> bool:
        """Every run seen has ended, and what it sent before its end is here or will not come."""
        return bool(self._admission.seen) and all(
            (last := self._lifecycle.get(run_id)) is not None
            and isinstance(last.event, leyline.RunEnded)
            and (seen.is_complete(last.sequence) or quiet_s > _AFTERMATH_S)
            for run_id, seen in self._admission.seen.items()
        )


def _sequence(envelope: leyline.Envelope) -> int:
    return envelope.sequence
