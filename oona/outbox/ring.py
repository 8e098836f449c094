"""A ring of CRC'd records in memory that outlives the process: one lane of the outbox.

Positions count bytes since the ring was made and never go back; `position % size` is the place in
the ring. A record is a 16-byte header (length of the body, CRC-32, ordinal) and its body, padded
to 8 bytes; ordinals count the ring's records from 1. Only acknowledged records are overwritten:

    oldest ... acknowledged, kept as history ... tail ... waiting ... head

A kill between any two stores is safe: a record counts once the state that includes it has been
written beside the old state and one aligned 8-byte store has switched to it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

ALIGNMENT: Final = 8
STATE_SIZE_BYTES: Final = 128

_HEADER: Final = struct.Struct("<IIQ")
_LENGTH: Final = struct.Struct("<I")
_SKIP: Final = 0xFFFFFFFF
"""In place of a length: the next record is at the beginning of the ring."""
_STATE: Final = struct.Struct("=6Q")
_STATE_OFFSETS: Final = (8, 64)
_HISTORY_SHARE: Final = 32
"""One part in this many of the history goes at once, so that making room is rare."""


class Record(NamedTuple):
    """One record whose CRC fits."""

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
    """One lane: `append` and `acknowledge` need the outbox's lock, reading needs none.

    Args:
        state_memory: STATE_SIZE_BYTES, all zero for a new ring.
        data: the ring; its length is a multiple of ALIGNMENT.
    """

    def __init__(self, state_memory: memoryview, data: memoryview):
        self._state_memory = state_memory
        self._selector = state_memory[:8].cast("Q")
        self._data = data
        self._size_bytes = len(data)
        self.state = load_state(state_memory)

    def is_sane(self) -> bool:
        """Say whether the state, as found in a file, can be true."""
        oldest, tail, head, accepted, *_ = self.state
        return (
            self._selector[0] in (0, 1)
            and oldest <= tail <= head <= oldest + self._size_bytes
            and self.state.acknowledged <= accepted
            and (self.state.acknowledged == accepted) == (tail == head)
            and not any(position % ALIGNMENT for position in (oldest, tail, head))
        )

    def append(self, body: bytes | bytearray) -> bool:
        """Add a record over acknowledged ones; False if it would overwrite one that waits."""
        state = self.state
        needed = _padded(len(body))
        start = state.head
        offset = last_offset = start % self._size_bytes
        wraps = offset + needed > self._size_bytes
        if wraps:
            start, offset = start + self._size_bytes - offset, 0
            if state.tail == state.head:
                state = state._replace(tail=start, head=start)
        end = start + needed
        if end - state.tail > self._size_bytes:
            return False
        if end - state.oldest > self._size_bytes:
            state = state._replace(oldest=self._evicted(state, end))
            self._commit(state)  # before the bytes change: readers elsewhere rely on it
        if wraps:
            _LENGTH.pack_into(self._data, last_offset, _SKIP)
        ordinal = state.accepted + 1
        checksum = zlib.crc32(body, ordinal & 0xFFFFFFFF)
        _HEADER.pack_into(self._data, offset, len(body), checksum, ordinal)
        offset += _HEADER.size
        self._data[offset : offset + len(body)] = body
        oldest, tail, _, _, delivered, damaged = state
        self._commit(State(oldest, tail, end, ordinal, delivered, damaged))
        return True

    def take(self, position: int, max_records: int, max_size_bytes: int) -> Batch | None:
        """Read records from a position on (at least one); None if there is nothing after it."""
        state = self.state
        position = max(position, state.oldest)
        if position >= state.head:
            return None
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
        state = self.state
        waited = batch.last_ordinal - state.acknowledged
        if waited <= 0:
            return  # history, sent again to a new server
        fresh = sum(record.ordinal > state.acknowledged for record in batch.records)
        self._commit(
            state._replace(
                tail=max(state.tail, batch.end),
                delivered=state.delivered + fresh,
                damaged=state.damaged + waited - fresh,
            )
        )

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
        """Yield the valid records from a position up to the state's head."""
        ordinal = state.acknowledged if position >= state.tail else 0
        in_step = True
        while position < state.head:
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
        end = position + _padded(length)
        if not previous < ordinal <= state.accepted or end > state.head:
            return None
        if offset + _padded(length) > self._size_bytes:
            return None
        offset += _HEADER.size
        body = bytes(self._data[offset : offset + length])
        fits = zlib.crc32(body, ordinal & 0xFFFFFFFF) == checksum
        return Record(end, ordinal, body) if fits else None

    def _evicted(self, state: State, end: int) -> int:
        """Position of the oldest record that stays when the ring is written up to `end`."""
        goal = end - self._size_bytes + self._size_bytes // _HISTORY_SHARE
        oldest = state.oldest
        last = min(state.tail, self.state.head)  # between the two may be room not yet marked unused
        while oldest < min(goal, last):
            offset = oldest % self._size_bytes
            length = _LENGTH.unpack_from(self._data, offset)[0]
            size_bytes = self._size_bytes - offset if length == _SKIP else _padded(length)
            oldest += size_bytes
        return oldest if oldest < last else state.tail

    def _commit(self, state: State) -> None:
        spare = 1 - self._selector[0]
        _STATE.pack_into(self._state_memory, _STATE_OFFSETS[spare], *state)
        self._selector[0] = spare
        self.state = state


def load_state(memory: memoryview) -> State:
    """Read the state committed last, also while another process writes."""
    selector = memory[:8].cast("Q")
    while True:
        slot = selector[0] % 2
        raw = memory[_STATE_OFFSETS[slot] :][: _STATE.size]
        before = bytes(raw)
        if selector[0] % 2 == slot and before == raw:
            return State(*_STATE.unpack(before))


def _padded(length: int) -> int:
    return (_HEADER.size + length + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
