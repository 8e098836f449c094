"""What a set of measurements comes to: its median and its tail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True)
class Quantiles:
    """The 50th, 95th and 99th percentile, in whatever unit the row states."""

    p50: float
    p95: float | None = None
    """None where there is one value and no tail: a size, a count."""
    p99: float | None = None

    @classmethod
    def of(cls, values: Sequence[float], scale: float = 1.0) -> Self:
        """Percentiles of measurements, each an observed one; `scale` turns them into the unit."""
        found = np.percentile(np.asarray(values) * scale, (50, 95, 99), method="higher")
        return cls(*map(float, found))

    def scaled(self, factor: float) -> Quantiles:
        """The same in another unit."""
        tail = (None if value is None else value * factor for value in (self.p95, self.p99))
        return Quantiles(self.p50 * factor, *tail)
