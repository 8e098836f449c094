"""Three counters that change together, in memory that one process writes and any may read.

The new values are written beside the old ones, then one aligned 8-byte store switches to them, so
a kill between any two stores leaves the old values or the new.
"""

from __future__ import annotations

import struct
from typing import Final

SIZE_BYTES: Final = 64

_VALUES: Final = struct.Struct("=3Q")
_OFFSETS: Final = (8, 32)


class Triple:
    """Three counters.

    Args:
        memory: SIZE_BYTES, aligned to 8; all zero for new counters.
    """

    def __init__(self, memory: memoryview):
        self._memory = memory
        self._selector = memory[:8].cast("Q")

    def load(self) -> tuple[int, int, int]:
        """The values stored last, also while another process stores."""
        selector, memory = self._selector, self._memory
        while True:
            slot = selector[0] % 2
            raw = memory[_OFFSETS[slot] : _OFFSETS[slot] + _VALUES.size]
            before = bytes(raw)
            if selector[0] % 2 == slot and before == raw:
                return _VALUES.unpack(before)

    def store(self, first: int, second: int, third: int) -> None:
        """Replace all three. One process, and one thread at a time, may do this."""
        spare = 1 - self._selector[0] % 2
        _VALUES.pack_into(self._memory, _OFFSETS[spare], first, second, third)
        self._selector[0] = spare

    def is_sane(self) -> bool:
        """Say whether the switch, as found in a file, can be true."""
        return self._selector[0] in (0, 1)
