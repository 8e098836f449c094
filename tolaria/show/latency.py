"""What boundaries cost: their parts, their sum and percentiles of both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from leyline import BoundaryTiming


class BoundaryMs(NamedTuple):
    """Milliseconds of a boundary: its three parts, and the whole."""

    gather: float
    decide: float
    apply: float
    total: float


def percentile(values: Sequence[float], q: float) -> float:
    """The q-th percentile, 0 to 100, linear between the two nearest ranks; NaN if empty."""
    if not values:
        return math.nan
    ordered = sorted(values)
    rank = (len(ordered) - 1) * q / 100
    below = math.floor(rank)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (rank - below)


def boundary_ms(timing: BoundaryTiming) -> BoundaryMs:
    """One boundary's parts and their sum."""
    parts = (timing.gather_ms, timing.decide_ms, timing.apply_ms)
    return BoundaryMs(*parts, sum(parts))
