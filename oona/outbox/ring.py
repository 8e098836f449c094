"""A ring of CRC'd records in memory that outlives the process: one lane of the outbox.

Positions count bytes since the ring was made and never go back; `position % size` is the place in
the ring. A record is a 16-byte header (length of the body, CRC-32, ordinal) and its body, padded
to 8 bytes; ordinals count the ring's records from 1. Only acknowledged records are overwritten:

    oldest ... acknowledged, kept as history ... tail ... waiting ... head

One writer appends and one sender acknowledges, each in its own process if need be and neither
waiting for the other: `oldest`, `head` and the count of records are the writer's, `tail` and the
counts of what became of them the sender's. A kill between any two stores is safe: a record counts
once the numbers that include it have been switched to.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from leyline.checksum import crc32
from oona.outbox import triple
from oona.outbox.triple import Triple

ALIGNMENT: Final = 8
STATE_SIZE_BYTES: Final = 2 * triple.SIZE_BYTES

_HEADER: Final = struct.Struct("<IIQ")
_LENGTH: Final = struct.Struct("<I")
_SKIP: Final = 0xFFFFFFFF
"""In place of a length: the next record is at the beginning of the ring."""
_HISTORY_SHARE: Final = 32
"""One part in this many of the history goes at once, so that making room is rare."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record whose CRC fits; a struct, because there are hundreds of thousands a second."""

    end: int
    """Position after the record."""
    ordinal: int
    body: bytes


class Batch(NamedTuple):
    """Records to send together; what was damaged among them is missing from `records`."""

    records: tuple[Record, ...]
    end: int
    """Position after the batch."""
    last_ordinal: int


class State(NamedTuple):
    """Where a ring stands: three positions, then counts of records."""

    oldest: int = 0
    tail: int = 0
    head: int = 0
    accepted: int = 0
    delivered: int = 0
    damaged: int = 0
    """Records found damaged before they could be delivered."""

    @property
    def acknowledged(self) -> int:
        """Ordinal of the last record before the tail."""
        return self.delivered + self.damaged


class Ring:
    """One lane. `append` is for one thread at a time, `acknowledge` for one; reading is for all.

    Args:
        state_memory: STATE_SIZE_BYTES, all zero for a new ring.
        data: the ring; its length is a multiple of ALIGNMENT.
    """

    def __init__(self, state_memory: memoryview, data: memoryview):
        self._written = Triple(state_memory[: triple.SIZE_BYTES])
        self._sent = Triple(state_memory[triple.SIZE_BYTES : STATE_SIZE_BYTES])
        self._data = data
        self._size_bytes = len(data)
        self._oldest, self._head, self._accepted = self._written.load()
        self._known_tail = self._tail()

    @property
    def state(self) -> State:
        """Where the ring stands, as of one moment, whoever writes and sends meanwhile."""
        sent = self._sent.load()
        while True:
            oldest, head, accepted = self._written.load()
            before, sent = sent, self._sent.load()
            if sent == before:
                tail, delivered, damaged = sent
                # A ring whose records were all sent may have been begun anew behind the tail.
                return State(oldest, max(tail, oldest), head, accepted, delivered, damaged)

    @property
    def room_bytes(self) -> int:
        """Size of the largest record that an empty ring takes."""
        return self._size_bytes - _HEADER.size

    def is_sane(self) -> bool:
        """Say whether the state, as found in a file, can be true."""
        if not (self._written.is_sane() and self._sent.is_sane()):
            return False
        oldest, tail, head, accepted, *_ = state = self.state
        return (
            oldest <= tail <= head <= oldest + self._size_bytes
            and state.acknowledged <= accepted
            and (state.acknowledged == accepted or tail < head)
            and not any(position % ALIGNMENT for position in (oldest, tail, head))
        )

    def append(self, header: bytes, body: bytes | bytearray = b"") -> bool:
        """Add a record, in two parts if need be, over acknowledged ones.

        Returns:
            False if it would overwrite one that waits.
        """
        length = len(header) + len(body)
        needed = _padded(length)
        start = self._head
        offset = last_offset = start % self._size_bytes
        wraps = offset + needed > self._size_bytes
        if wraps:
            start, offset = start + self._size_bytes - offset, 0
        end = start + needed
        tail = self._known_tail
        if end - tail > self._size_bytes:
            tail = self._known_tail = self._tail()
            if wraps and tail == self._head:
                tail = start  # nothing waits, so what lies before it is free too
            if end - tail > self._size_bytes:
                return False
        if end - self._oldest > self._size_bytes:
            self._oldest = self._evicted(end, tail)
            self._head = max(self._head, self._oldest)
            # Before the bytes change: readers elsewhere rely on it.
            self._written.store(self._oldest, self._head, self._accepted)
        if wraps:
            _LENGTH.pack_into(self._data, last_offset, _SKIP)
        ordinal = self._accepted + 1
        checksum = crc32(body, crc32(header, ordinal & 0xFFFFFFFF))
        _HEADER.pack_into(self._data, offset, length, checksum, ordinal)
        offset += _HEADER.size
        between = offset + len(header)
        self._data[offset:between] = header
        self._data[between : offset + length] = body
        # First our own: an interrupt in between leaves a whole record for the next store to show.
        self._head, self._accepted = end, ordinal
        self._written.store(self._oldest, end, ordinal)
        return True

    def take(self, position: int, max_records: int, max_size_bytes: int) -> Batch | None:
        """Read records from a position on (at least one); None if there is nothing after it."""
        state = self.state
        position = max(position, state.oldest)
        if not position < state.head <= position + self._size_bytes:
            return None  # nothing, or a state that somebody has spoilt and the next append mends
        records: list[Record] = []
        size_bytes = 0
        for record in self.scan(position, state):
            size_bytes += len(record.body)
            if records and (len(records) == max_records or size_bytes > max_size_bytes):
                return Batch(tuple(records), records[-1].end, records[-1].ordinal)
            records.append(record)
        return Batch(tuple(records), state.head, state.accepted)

    def acknowledge(self, batch: Batch) -> None:
        """Move the tail past a batch; records that are missing from it count as damaged."""
        tail, delivered, damaged = self._sent.load()
        acknowledged = delivered + damaged
        waited = batch.last_ordinal - acknowledged
        if waited <= 0:
            return  # history, sent again to a new server
        fresh = sum(record.ordinal > acknowledged for record in batch.records)
        self._sent.store(max(tail, batch.end), delivered + fresh, damaged + waited - fresh)

    def num_waiting(self, state: State) -> int:
        """Count the undamaged records between tail and head by reading every one of them."""
        return sum(1 for _ in self.scan(state.tail, state))

    def history(self, oldest: int) -> tuple[list[Record], int]:
        """Every record kept from a position on, and how many are damaged (as far as is known)."""
        start = self._past_filler(max(oldest, self.state.oldest))
        records = list(self.scan(start, self.state))
        if not records:
            return [], self.state.accepted - self.state.acknowledged or int(start < self.state.head)
        first, last = records[0], records[-1]
        num_missing = last.ordinal - first.ordinal + 1 - len(records)
        num_missing += self.state.accepted - last.ordinal
        return records, num_missing + (first.end - _padded(len(first.body)) != start)

    def scan(self, position: int, state: State) -> Iterator[Record]:
        """Yield the valid records from a position up to the state's head.

        Of a state that somebody has spoilt no more is read than a ring can hold.
        """
        ordinal = state.acknowledged if position >= state.tail else 0
        in_step = True
        end = min(state.head, position + self._size_bytes)
        while position < end:
            if in_step:
                position = self._past_filler(position)
            record = self._read(position, ordinal, state)
            in_step = record is not None
            if record is None:
                position += ALIGNMENT  # damaged: look for the next record that fits
                continue
            yield record
            position, ordinal = record.end, record.ordinal

    def _past_filler(self, position: int) -> int:
        """Where the next record is if the rest of the ring is unused here, else the position."""
        offset = position % self._size_bytes
        unused = _LENGTH.unpack_from(self._data, offset)[0] == _SKIP
        return position + self._size_bytes - offset if unused else position

    def _read(self, position: int, previous: int, state: State) -> Record | None:
        offset = position % self._size_bytes
        if offset + _HEADER.size > self._size_bytes:
            return None
        length, checksum, ordinal = _HEADER.unpack_from(self._data, offset)
        size_bytes = _padded(length)
        end = position + size_bytes
        if not previous < ordinal <= state.accepted or end > state.head:
            return None
        if offset + size_bytes > self._size_bytes:
            return None
        offset += _HEADER.size
        body = bytes(self._data[offset : offset + length])
        fits = crc32(body, ordinal & 0xFFFFFFFF) == checksum
        return Record(end, ordinal, body) if fits else None

    def _tail(self) -> int:
        """Where the first record that waits begins."""
        return max(self._sent.load()[0], self._oldest)

    def _evicted(self, end: int, tail: int) -> int:
        """Position of the oldest record that stays when the ring is written up to `end`."""
        goal = end - self._size_bytes + self._size_bytes // _HISTORY_SHARE
        oldest = self._oldest
        last = min(tail, self._head)
        while oldest < min(goal, last):
            offset = oldest % self._size_bytes
            length = _LENGTH.unpack_from(self._data, offset)[0]
            size_bytes = self._size_bytes - offset if length == _SKIP else _padded(length)
            oldest += size_bytes
        return oldest if oldest < last else tail


def oldest(state_memory: memoryview) -> int:
    """Position of the oldest record kept, by the state of a ring."""
    return Triple(state_memory[: triple.SIZE_BYTES]).load()[0]


def _padded(length: int) -> int:
    return (_HEADER.size + length + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
