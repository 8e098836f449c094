"""The transport of the bus URL "memory": streams kept in the process, for tests and notebooks."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from typing import Final

from oona.streams.entry import Entry

_NUM_ENTRIES: Final = 10_000


class MemoryTransport:
    """Keeps the newest entries of a bus; nobody outside the process can read them."""

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque(maxlen=_NUM_ENTRIES)
        self._identity = os.urandom(8).hex()

    def connect(self) -> str:
        """Return an identity that no other transport has."""
        return f"memory {self._identity}"

    def append(self, entries: Sequence[Entry]) -> list[str | None]:
        """Keep the entries."""
        self.entries.extend(entries)
        return [None] * len(entries)

    def close(self) -> None:
        """Keep what is there: it can be read after the bus is closed."""
