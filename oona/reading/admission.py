"""What is taken for an event: decoded, of the right run, not seen before; and what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import leyline
from oona.reading.sequences import SequenceSet
from oona.streams import entry
from oona.streams.entry import StoredEntry
from oona.streams.names import stream_names

Ranges = Iterable[tuple[int, int]]

_LOSS_EVENTS: Final = 1 << 40
"""No run has so many: a new outbox goes on far above whatever one that is gone can have used."""


class Gap(NamedTuple):
    """Sequences of a run that are missing where a stream was trimmed before it was read.

    Events that the run itself dropped, which its DropsCounted events count by type, have used up a
    sequence too: among those of a gap are all that fell into the same stretch.
    """

    run_id: str
    first: int
    last: int

    @property
    def num_events(self) -> int:
        """How many sequences are missing."""
        return self.last - self.first + 1

    @property
    def is_loss(self) -> bool:
        """Whether an outbox was lost, and with it the knowledge of how many events it had."""
        return self.num_events >= _LOSS_EVENTS


class Admission:
    """Decodes what nobody vouches for, and remembers which events of which run were seen.

    Args:
        seen: by run the sequences known already, as ranges with their ends included.
    """

    def __init__(self, seen: Mapping[str, Ranges] | None = None):
        self.num_refused = 0
        """Entries, records and events skipped so far: damaged, hostile, or of another run."""
        self.seen: dict[str, SequenceSet] = {}
        self._newest: dict[bytes, int] = {}
        self._trimmed: dict[str, SequenceSet] = {}
        self._after_trim: set[bytes] = set()
        for run_id, ranges in (seen or {}).items():
            known = self.seen.setdefault(run_id, SequenceSet())
            for first, last in ranges:
                known.add_range(first, last)

    def open(self, stored: StoredEntry, run_id: str) -> list[leyline.Envelope]:
        """Decode an entry of a run's stream, and note whether a trim came before it."""
        try:
            bodies = entry.unpack(stored.num_events, stored.payload)
        except leyline.ContractError:
            self.num_refused += 1
            bodies = []
        envelopes = self.decode(bodies, run_id)
        self._note(stored, run_id, [envelope.sequence for envelope in envelopes])
        return envelopes

    def decode(self, bodies: Iterable[bytes], run_id: str | None) -> list[leyline.Envelope]:
        """Decode encoded envelopes, of one run or of any; what is none is counted."""
        envelopes: list[leyline.Envelope] = []
        for body in bodies:
            try:
                envelope = leyline.decode(body)
            except leyline.ContractError:
                envelope = None
            if (
                isinstance(envelope, leyline.Envelope)
                and envelope.sequence >= 1
                and envelope.run_id == (run_id or envelope.run_id)
            ):
                envelopes.append(envelope)
            else:
                self.num_refused += 1
        return envelopes

    def add(self, envelope: leyline.Envelope) -> bool:
        """Note an event as seen; False if it was already."""
        return self.seen.setdefault(envelope.run_id, SequenceSet()).add(envelope.sequence)

    def has(self, envelope: leyline.Envelope) -> bool:
        """Say whether an event was seen."""
        known = self.seen.get(envelope.run_id)
        return known is not None and not known.missing(envelope.sequence, envelope.sequence)

    def lose(self, run_id: str) -> None:
        """Note that entries of a run went, nobody knows which, after they had been delivered."""
        names = stream_names(run_id).values()
        if newest := max(self._newest.get(stream, 0) for stream in names):
            self._trimmed.setdefault(run_id, SequenceSet()).add_range(1, newest)

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """What is missing now where streams were trimmed; what another lane brings leaves it."""
        return tuple(
            Gap(run_id, *missing)
            for run_id, trimmed in self._trimmed.items()
            for stretch in trimmed.ranges()
            for missing in self.seen.get(run_id, SequenceSet()).missing(*stretch)
        )

    def _note(self, stored: StoredEntry, run_id: str, sequences: list[int]) -> None:
        stream = stored.stream
        if stored.is_after_trim:
            self._after_trim.add(stream)
        if not sequences:
            return
        before = self._newest.get(stream, 0)
        if stream in self._after_trim:
            self._after_trim.discard(stream)
            first, last = before + 1, min(sequences) - 1
            if first <= last:
                self._trimmed.setdefault(run_id, SequenceSet()).add_range(first, last)
        self._newest[stream] = max(before, *sequences)
