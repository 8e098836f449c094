"""Where seed records go: a protocol, and the one that keeps them in the process."""

from __future__ import annotations

from typing import Protocol


class RecordSink(Protocol):
    """Keeps the newest records of every seed; never raises for what a disk does."""

    @property
    def last_id(self) -> int:
        """The highest id it was ever given, also in an earlier part of the run; 0 for none."""

    def commit(self, seed: str, checkpoint_id: int, record: bytes) -> None:
        """Take a seed's newest record; the one before it is kept too."""

    def records(self, seed: str) -> list[bytes]:
        """The records of a seed that are whole, newest first; at most two."""


class MemoryRecords:
    """Keeps two records of every seed for as long as the process lives."""

    def __init__(self) -> None:
        self.last_id = 0
        self._records: dict[str, tuple[bytes, ...]] = {}

    def commit(self, seed: str, checkpoint_id: int, record: bytes) -> None:
        """Keep the record and the one before it."""
        self.last_id = max(self.last_id, checkpoint_id)
        self._records[seed] = (record, *self._records.get(seed, ())[:1])

    def records(self, seed: str) -> list[bytes]:
        """The records of a seed, newest first."""
        return list(self._records.get(seed, ()))
