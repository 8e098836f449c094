"""A row of the table: one claim, what was measured, what it was held against, the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from bench.harness.effort import Comparison
from bench.harness.quantiles import Quantiles

_UNITS_PER_US = {"ns": 1e3, "us": 1.0, "ms": 1e-3, "s": 1e-6}


class Verdict(StrEnum):
    """What became of a goal."""

    MET = "met"
    MISSED = "missed"
    NO_GOAL = "-"
    """Only shown."""
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Target:
    """The most that ours may be, in the row's unit; None where nothing was asked."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None

    def holds(self, found: Quantiles) -> bool:
        """Whether every percentile that was asked for is there and within."""
        pairs = ((self.p50, found.p50), (self.p95, found.p95), (self.p99, found.p99))
        return all(most is None or (value is not None and value <= most) for most, value in pairs)


@dataclass(frozen=True)
class Peer:
    """The limit or peer beside it. A ratio is ours over it, so less is better in every row."""

    name: str
    ratio: float
    p50: float | None = None
    """In the row's unit; None if it has none of its own."""
    band: tuple[float, float] | None = None
    """It against itself in the same run; None for a limit, which does not vary."""
    most: float | None = None
    """The goal for the ratio; None where it is only shown."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One claim. All figures are costs: times, sizes, counts, shares."""

    id: str
    """Stays the same from version to version: results are compared by it."""
    claim: str
    unit: str
    ours: Quantiles | None = None
    target: Target = Target()
    peer: Peer | None = None
    note: str = ""
    missing: str = ""
    """Why it could not be measured here."""

    @classmethod
    def timed(
        cls,
        id: str,
        claim: str,
        unit: str,
        found: Comparison,
        *,
        peer: str,
        most: float | None = None,
        target: Target | None = None,
        note: str = "",
        per: int = 1,
    ) -> Self:
        """A row of a comparison.

        Args:
            unit: ns, us, ms or s, and perhaps what it is of: "ns a seed".
            most: the goal for the ratio.
            per: how many of them were timed at once.
        """
        scale = _UNITS_PER_US[unit.split()[0]] / per
        return cls(
            id=id,
            claim=claim,
            unit=unit,
            ours=found.ours_us.scaled(scale),
            target=target or Target(),
            peer=Peer(peer, found.ratio, found.peer_us.p50 * scale, found.band, most),
            note=note,
        )

    @property
    def verdict(self) -> Verdict:
        """Met if all that was asked for holds."""
        if self.missing or self.ours is None:
            return Verdict.NOT_MEASURED
        most = None if self.peer is None else self.peer.most
        if most is None and self.target == Target():
            return Verdict.NO_GOAL
        beside = most is None or (self.peer is not None and self.peer.ratio <= most)
        return Verdict.MET if beside and self.target.holds(self.ours) else Verdict.MISSED
