"""A histogram of durations: eight buckets to each power of two, recorded in a tenth of a us."""

from __future__ import annotations

import math
from typing import Final

_PARTS: Final = 8
"""Buckets to a power of two: a percentile is off by at most 1/16 of itself."""
_LONGEST_NS: Final = 2**43 - 1
"""2.4 hours; what takes longer counts as that long."""
_SHIFT_BITS: Final = _PARTS.bit_length()
_NUM_BUCKETS: Final = (_LONGEST_NS.bit_length() - _SHIFT_BITS + 2) * _PARTS


class Histogram:
    """Counts durations in nanoseconds; the memory is fixed (2.5 KB).

    One thread may record at a time: `Operations` holds a lock around it. A reader needs none; it
    may see a count that is one behind.
    """

    __slots__ = ("_counts", "count", "longest_ns")

    def __init__(self) -> None:
        self.count = 0
        """Durations recorded."""
        self.longest_ns = 0
        self._counts = [0] * _NUM_BUCKETS

    def record(self, duration_ns: int) -> None:
        """Count one duration; a negative one counts as 0, one over 2.4 hours as that."""
        if not 0 <= duration_ns <= _LONGEST_NS:
            duration_ns = min(max(duration_ns, 0), _LONGEST_NS)
        shift = duration_ns.bit_length() - _SHIFT_BITS
        if shift > 0:
            self._counts[shift * _PARTS + (duration_ns >> shift)] += 1
        else:
            self._counts[duration_ns] += 1
        self.count += 1
        if duration_ns > self.longest_ns:
            self.longest_ns = duration_ns

    def percentile_ns(self, q: float) -> float:
        """The q-th percentile (0 to 100) in ns, within 1/16 of the true one; NaN if empty."""
        rank = math.ceil(sum(self._counts) * q / 100)
        below = 0
        for bucket, num in enumerate(self._counts):
            below += num
            if num and below >= rank:
                return min(_middle_ns(bucket), self.longest_ns)
        return math.nan


def _middle_ns(bucket: int) -> float:
    shift = max(bucket // _PARTS - 1, 0)
    first_ns = (bucket - shift * _PARTS) << shift
    return first_ns + ((1 << shift) - 1) / 2
