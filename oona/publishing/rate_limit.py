"""A limit on what the publisher sends, so that telemetry never fills a line that others share."""

from __future__ import annotations

import time
from collections.abc import Callable


class RateLimit:
    """A bucket of one second's bytes that fills steadily; what is sent may overdraw it once.

    Args:
        bytes_per_s: the limit; None for none.
        monotonic: a clock in seconds.
    """

    def __init__(self, bytes_per_s: int | None, monotonic: Callable[[], float] = time.monotonic):
        self._bytes_per_s = bytes_per_s
        self._monotonic = monotonic
        self._left_bytes = float(bytes_per_s or 0)
        self._at_s = monotonic()

    def note(self, size_bytes: int) -> float:
        """Count what was sent; returns the seconds to wait before more may be."""
        if self._bytes_per_s is None:
            return 0.0
        now_s = self._monotonic()
        filled_bytes = self._left_bytes + (now_s - self._at_s) * self._bytes_per_s
        self._left_bytes = min(filled_bytes, self._bytes_per_s) - size_bytes
        self._at_s = now_s
        return max(0.0, -self._left_bytes / self._bytes_per_s)
