"""The latency watch: tells once that a part of the boundary became too slow, and once that not."""

from __future__ import annotations

from collections import deque
from typing import Final

from leyline import BoundaryTiming, LatencyAlert, limits
from tolaria.show.latency import BoundaryMs, boundary_ms, percentile

_WINDOW: Final = 20
"""Boundaries that a p95 is taken over."""
_LEAST: Final = 5
"""Boundaries of which there must be times before one is judged."""
_DRIFT: Final = 3
"""Boundaries in a row for which the p95 is over its limit before that is said."""
LIMITS_MS: Final = BoundaryMs(
    limits.GATHER_MS, limits.DECIDE_MS, limits.APPLY_MS, limits.BOUNDARY_MS
)
PARTS: Final = ("gather", "decide", "apply", "all three")
"""What readers call the fields of BoundaryMs."""


class LatencyWatch:
    """Follows the p95 of gather, decide, apply and their sum over the last boundaries.

    One slow boundary alone is no drift: two of the window must be over the limit.
    """

    def __init__(self) -> None:
        self._window: deque[BoundaryMs] = deque(maxlen=_WINDOW)
        self._num_over = [0] * len(PARTS)
        self._alerted = [False] * len(PARTS)

    def observe(self, timing: BoundaryTiming) -> list[LatencyAlert]:
        """Take one boundary's times; returns the alerts that begin or end with it."""
        self._window.append(boundary_ms(timing))
        if len(self._window) < _LEAST:
            return []
        alerts = []
        for part, limit_ms in enumerate(LIMITS_MS):
            values = [times[part] for times in self._window]
            p95_ms = percentile(values, 95)
            is_over = p95_ms > limit_ms and sum(value > limit_ms for value in values) > 1
            self._num_over[part] = self._num_over[part] + 1 if is_over else 0
            was_alerted = self._alerted[part]
            if is_over:
                self._alerted[part] = was_alerted or self._num_over[part] >= _DRIFT
            else:
                self._alerted[part] = False
            if self._alerted[part] != was_alerted:
                alerts.append(
                    LatencyAlert(
                        epoch=timing.epoch,
                        part=PARTS[part],
                        p95_ms=p95_ms,
                        limit_ms=limit_ms,
                        num_boundaries=len(values),
                        resolved=was_alerted,
                    )
                )
        return alerts
