"""Two results of the benches held against each other: by ratios, for times do not travel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_NOISE_OF_LIMITS = (0.8, 1.25)
"""For ratios without a band of their own."""


@dataclass(frozen=True)
class Change:
    """A row in both."""

    id: str
    before: float
    after: float
    noise: float
    """A ratio may change by this factor, up or down, and mean nothing."""

    @property
    def factor(self) -> float:
        """The ratio now over the ratio then: above 1 is worse."""
        return self.after / self.before

    @property
    def words(self) -> str:
        """What to make of it."""
        if self.factor > self.noise:
            return "slower"
        return "faster" if self.factor < 1 / self.noise else "as before"


def changes(before: dict[str, Any], after: dict[str, Any]) -> Iterator[Change]:
    """Every row that has a ratio in both, in the order of the later."""
    old = {row["id"]: row["peer"] for row in before["rows"]}
    for row in after["rows"]:
        then, now = old.get(row["id"]), row["peer"]
        if then and now and then["ratio"] > 0 and now["ratio"] > 0:
            yield Change(row["id"], then["ratio"], now["ratio"], _width(then) * _width(now))


def _width(peer: dict[str, Any]) -> float:
    """How far the peer was from itself, as a factor above 1."""
    low, high = peer["band"] or _NOISE_OF_LIMITS
    return max(high, 1 / low) if low > 0 else high
