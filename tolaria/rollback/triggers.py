"""Triggers: what tells that a run is broken; each looks at one thing and says what is wrong.

A value that is finite counts only against what came before it: the median of a bounded window, and
the median absolute deviation from it, which no single outlier moves. Values that stand out are kept
out of the window, and take three in a row to mean anything.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch

IN_A_ROW: Final = 3
"""Values that stand out, one after another, before a spike is one."""
_GAUSSIAN: Final = 1.4826
"""Makes the median absolute deviation of a normal distribution its standard deviation."""
_SMALLEST_SHARE: Final = 0.05
"""A deviation counts as at least this share of the median: a flat window says nothing of noise."""
_STEPS_BETWEEN: Final = 16
"""Values after which the limit is worked out again: sorting a window at every step would show."""


class NonFinite:
    """A number that is NaN or infinite."""

    def __init__(self, what: str):
        self._what = what

    def see(self, value: float) -> str | None:
        """What is wrong with a value, or None."""
        return None if math.isfinite(value) else f"{self._what} is {value:g}"


class Spike:
    """A number that is far above its usual ones, some times in a row.

    Args:
        what: its name.
        deviations: how many robust standard deviations above the median are too far; 0 is never.
        window: how many usual values are remembered.
        needed: how many there must be before any is judged.
        in_a_row: values that stand out before the last of them is reported.
        times_first: a value must also be above so many times the median of the first ones: the
            losses of a network that has learnt its data are spread over powers of ten.
    """

    def __init__(
        self,
        what: str,
        deviations: float,
        *,
        window: int = 64,
        needed: int = 20,
        in_a_row: int = IN_A_ROW,
        times_first: float = 10.0,
    ):
        self._what = what
        self._deviations = deviations
        self._needed = needed
        self._in_a_row = in_a_row
        self._times_first = times_first
        self._usual: deque[float] = deque(maxlen=window)
        self._first: float | None = None
        self._limit = math.inf
        self._until_next = 0
        self._num_out = 0
        self.num_outliers = 0
        """Values that stood out, in a row or not, since somebody set this to 0."""
        self.num_spikes = 0
        """Spikes, alike."""

    def see(self, value: float) -> str | None:
        """Take one finite value; what is wrong with it, or None."""
        if value <= self._limit:
            self._usual.append(value)
            self._num_out = 0
            self._until_next -= 1
            if self._until_next <= 0 and len(self._usual) >= self._needed:
                self._set_limit()
            return None
        self._num_out += 1
        self.num_outliers += 1
        if self._num_out < self._in_a_row:
            return None
        self._num_out = 0
        self.num_spikes += 1
        times = f"{self._in_a_row} times in a row " if self._in_a_row > 1 else ""
        return f"{self._what} is {value:g}, {times}above {self._limit:g}"

    def usual(self) -> tuple[float, float] | None:
        """Median and variance of the usual values; None before there are enough of them."""
        if len(self._usual) < self._needed:
            return None
        mean = statistics.fmean(self._usual)
        squares = [(value - mean) ** 2 for value in self._usual]
        return statistics.median(self._usual), statistics.fmean(squares)

    def forget(self) -> None:
        """Begin anew: what stood out is how things are from now on."""
        self._usual.clear()
        self._first, self._limit, self._until_next, self._num_out = None, math.inf, 0, 0

    def _set_limit(self) -> None:
        if not self._deviations:
            return
        median = statistics.median(self._usual)
        spread = statistics.median(abs(value - median) for value in self._usual)
        deviation = max(_GAUSSIAN * spread, _SMALLEST_SHARE * abs(median))
        self._first = median if self._first is None else self._first
        self._limit = max(median + self._deviations * deviation, self._times_first * self._first)
        self._until_next = _STEPS_BETWEEN

    def state_dict(self) -> dict[str, Any]:
        """What the next answers depend on; all finite."""
        return {
            "usual": list(self._usual),
            "first": self._first,
            "limit": None if math.isinf(self._limit) else self._limit,
            "until_next": self._until_next,
            "num_out": self._num_out,
            "num_outliers": self.num_outliers,
            "num_spikes": self.num_spikes,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self._usual.clear()
        self._usual.extend(state["usual"])
        self._first = state.get("first")
        self._limit = math.inf if state["limit"] is None else state["limit"]
        self._until_next, self._num_out = state["until_next"], state["num_out"]
        self.num_outliers = state.get("num_outliers", 0)
        self.num_spikes = state.get("num_spikes", 0)


class MemoryLimit:
    """More memory in use than was stated: of the GPUs where there are any, else of the process.

    Free memory is nothing that a resumed run finds again, so what this says is on record, and is
    said again at the same epochs.

    Args:
        limit_bytes: None is no limit.
        used_bytes: how much is in use now.
    """

    def __init__(self, limit_bytes: int | None, used_bytes: Callable[[], int] | None = None):
        self._limit_bytes = limit_bytes
        self._used_bytes = used_bytes or memory_used_bytes
        self._short: frozenset[int] = frozenset()
        self._last_known = 0
        self._num_short: int | None = None

    def replay(self, short: frozenset[int], last_epoch: int) -> None:
        """Answer as the run that is resumed did: short at these epochs, and up to the last at no
        others."""
        self._short, self._last_known = short, last_epoch

    def see(self, epoch: int) -> str | None:
        """What is wrong at the boundary of an epoch, or None."""
        if epoch <= self._last_known:
            return "memory was short here before the resume" if epoch in self._short else None
        if self._limit_bytes is None or (used_bytes := self._used_bytes()) <= self._limit_bytes:
            return None
        return f"memory in use is {used_bytes:,} bytes, above memory_limit_bytes"

    def note_rollback(self) -> None:
        """The run has gone back for want of memory; whether that helps is counted from here on."""
        self._num_short = 0

    def usage(self) -> tuple[float, int]:
        """Look once in each boundary.

        Returns:
            The memory in use as a share of the limit, 0 without one; the boundaries in a row above
            it since the run went back for want of memory.
        """
        if self._limit_bytes is None:
            return 0.0, 0
        share = self._used_bytes() / self._limit_bytes
        if self._num_short is not None:
            self._num_short = self._num_short + 1 if share > 1.0 else None
        return share, self._num_short or 0


def memory_used_bytes() -> int:
    """Memory that torch holds on all GPUs; without one, that of the process; 0 if unknown."""
    if torch.cuda.is_available():
        return sum(torch.cuda.memory_reserved(d) for d in range(torch.cuda.device_count()))
    try:
        num_pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return num_pages * 4096
