"""The mean loss of the steps since the last boundary."""

from __future__ import annotations

import math


class MeanLoss:
    """Losses that are finite, averaged; they are read at most one step late."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._num = 0

    def add(self, loss: float) -> None:
        """Take one step's loss."""
        self._sum += loss
        self._num += 1

    def take(self) -> float:
        """The mean since this was last asked; NaN if there was no loss."""
        mean = self._sum / self._num if self._num else math.nan
        self._sum, self._num = 0.0, 0
        return mean
