"""Operations under watch: how often, how long, how many at once, how many failed, at what memory.

`with operations.timed("send"):` does it all, around an `await` too.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

import msgspec

from oona.metrics.histogram import Histogram

_LOG = logging.getLogger("esper")
_SLOW_S: Final = 1.0
_LOG_INTERVAL_S: Final = 60.0
"""Least time between two lines about one slow operation; those between are counted."""
_MEASURABLE_NS: Final = 2_000_000
"""An operation's memory is looked at (20 us) if it took at least so long the last time."""
_PAGE_SIZE_BYTES: Final = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_NS: Final = 1_000_000_000


class OperationSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one kind of operation so far."""

    count: int
    """Operations that have ended, failed ones included."""
    errors: int
    """Those that ended with an exception; a cancelled one is none of them."""
    active: int
    """Operations under way now."""
    p50_ms: float
    """Percentiles within 6 % of the true ones; NaN while none has ended."""
    p95_ms: float
    p99_ms: float
    longest_ms: float
    memory_delta_bytes: int | None
    """Growth of the process's resident memory while one was under way, summed over those that were
    looked at; what other threads did meanwhile is in it. None where it was never looked at: not on
    Linux, or all too short."""


class _Operation:
    """The counts of one kind of operation; changed under the lock of its Operations alone."""

    __slots__ = ("active", "errors", "histogram", "last_ns", "logged_ns", "memory_bytes", "slow")

    def __init__(self) -> None:
        self.histogram = Histogram()
        self.errors = self.active = self.slow = 0
        self.last_ns = _MEASURABLE_NS  # the first one is looked at: nobody knows how long it takes
        self.logged_ns: int | None = None
        self.memory_bytes: int | None = None

    def summary(self) -> OperationSummary:
        """What became of them so far, as plain numbers."""
        histogram = self.histogram
        p50, p95, p99 = (histogram.percentile_ns(q) / 1e6 for q in (50, 95, 99))
        return OperationSummary(
            count=histogram.count,
            errors=self.errors,
            active=self.active,
            p50_ms=p50,
            p95_ms=p95,
            p99_ms=p99,
            longest_ms=histogram.longest_ns / 1e6 if histogram.count else math.nan,
            memory_delta_bytes=self.memory_bytes,
        )


class Operations:
    """The operations of one part of Esper, by name; any thread or task may time one.

    Args:
        clock_ns: a clock that never goes back.
        memory: tells the resident memory of the process in bytes, or None if it cannot.
    """

    def __init__(
        self,
        *,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        memory: Callable[[], int | None] | None = None,
    ) -> None:
        self._clock_ns = clock_ns
        self._memory = memory or resident_size_bytes
        self._lock = threading.Lock()
        self._known: dict[str, _Operation] = {}

    def timed(self, name: str, *, slow_s: float = _SLOW_S) -> Timed:
        """Watch one operation, from entering what is returned to leaving it.

        Args:
            name: the kind of operation; each name is kept for ever, so put no ids in it.
            slow_s: above this it is logged by name, once a minute at most.
        """
        return Timed(self, name, slow_s)

    def summary(self) -> dict[str, OperationSummary]:
        """What became of the operations so far, by name."""
        with self._lock:
            return {name: known.summary() for name, known in sorted(self._known.items())}

    def _begin(self, name: str) -> tuple[int, int | None]:
        """Count one more under way; return the time, and the memory if it is to be looked at."""
        with self._lock:
            known = self._known.get(name)
            if known is None:
                known = self._known[name] = _Operation()
            known.active += 1
            is_measured = known.last_ns >= _MEASURABLE_NS
        memory_bytes = self._memory() if is_measured else None
        return self._clock_ns(), memory_bytes

    def _end(self, timed: Timed, *, has_failed: bool) -> None:
        now_ns = self._clock_ns()
        lasted_ns = now_ns - timed.began_ns
        before = timed.memory_bytes
        after = None if before is None else self._memory()
        grown = None if before is None or after is None else after - before
        with self._lock:
            known = self._known[timed.name]
            known.active -= 1
            known.errors += has_failed
            known.last_ns = lasted_ns
            known.histogram.record(lasted_ns)
            if grown is not None:
                known.memory_bytes = (known.memory_bytes or 0) + grown
            num_unsaid = self._note_slow(known, now_ns, lasted_ns, timed.slow_s)
        if num_unsaid is not None:
            more = f"; {num_unsaid} more were slow since the last line" if num_unsaid else ""
            memory = "" if grown is None else f", memory {grown / 1e6:+.1f} MB"
            _LOG.warning(
                "%s took %.2f s, over its %.2f s%s%s",
                *(timed.name, lasted_ns / _NS, timed.slow_s, memory, more),
            )

    def _note_slow(
        self, known: _Operation, now_ns: int, lasted_ns: int, slow_s: float
    ) -> int | None:
        """Say how many slow ones went unsaid if this one is to be said, else None."""
        if lasted_ns <= slow_s * _NS:
            return None
        if known.logged_ns is not None and now_ns - known.logged_ns < _LOG_INTERVAL_S * _NS:
            known.slow += 1
            return None
        num_unsaid, known.slow, known.logged_ns = known.slow, 0, now_ns
        return num_unsaid


class Timed:
    """One operation under watch; made by `Operations.timed`, entered once."""

    __slots__ = ("_operations", "began_ns", "memory_bytes", "name", "slow_s")

    def __init__(self, operations: Operations, name: str, slow_s: float):
        self._operations = operations
        self.name = name
        self.slow_s = slow_s
        self.began_ns = 0
        self.memory_bytes: int | None = None

    def __enter__(self) -> Self:
        self.began_ns, self.memory_bytes = self._operations._begin(self.name)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        has_failed = kind is not None and issubclass(kind, Exception)
        self._operations._end(self, has_failed=has_failed)


def resident_size_bytes() -> int | None:
    """The memory of this process that is in RAM, in bytes; None where /proc does not tell."""
    with contextlib.suppress(OSError, IndexError, ValueError), open("/proc/self/statm", "rb") as f:
        return int(f.read(64).split()[1]) * _PAGE_SIZE_BYTES
    return None
