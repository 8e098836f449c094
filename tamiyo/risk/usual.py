"""The usual value of a number that is told once in each boundary."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

_WINDOW: Final = 8
_NEEDED: Final = 4
"""Values before one is judged."""
_IN_A_ROW: Final = 3
"""Values that stand out, one after another, before they are how things are from now on."""


class Usual:
    """The running median of what was usual; what stands out is kept out of it.

    Args:
        times: a value that is at least so many times the median stands out.
    """

    def __init__(self, times: float):
        self._times = times
        self._held: deque[float] = deque(maxlen=_WINDOW)
        self._num_out = 0

    def take(self, value: float | None) -> float:
        """Take a value of 0 or more; how many times the median it is, 0 if that is not known."""
        if value is None or not math.isfinite(value):
            return 0.0
        ratio = 0.0
        if len(self._held) >= _NEEDED and (median := statistics.median(self._held)) > 0.0:
            ratio = value / median
        if ratio < self._times:
            self._num_out = 0
            self._held.append(value)
            return ratio
        self._num_out += 1
        if self._num_out >= _IN_A_ROW:
            self._held.clear()
            self._num_out = 0
        return ratio

    def state_dict(self) -> dict[str, Any]:
        """What the next answers depend on."""
        return {"held": list(self._held), "num_out": self._num_out}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self._held.clear()
        self._held.extend(state["held"])
        self._num_out = state["num_out"]
