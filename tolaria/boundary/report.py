"""The report of a boundary: what it did, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from leyline import BoundaryTiming, Decision, SeedReport, limits


@dataclass(frozen=True)
class BoundaryReport:
    """What one boundary did and what it cost, in ms."""

    epoch: int
    decision: Decision
    reports: tuple[SeedReport, ...]
    gather_ms: float
    decide_ms: float
    apply_ms: float
    outside_ms: dict[str, float]
    """Work timed apart from the boundary: races, counterfactuals, snapshots, checkpoints."""

    @classmethod
    def of(
        cls,
        decision: Decision,
        reports: list[SeedReport],
        took_ms: Mapping[str, float],
        *,
        outside_ms: dict[str, float],
    ) -> Self:
        """A report from the times of the stages; one that did not run took 0 ms."""
        return cls(
            epoch=decision.epoch,
            decision=decision,
            reports=tuple(reports),
            gather_ms=took_ms.get("gather", 0.0),
            decide_ms=took_ms.get("decide", 0.0),
            apply_ms=took_ms.get("apply", 0.0),
            outside_ms=outside_ms,
        )

    @property
    def total_ms(self) -> float:
        """Gather, decide and apply together."""
        return self.gather_ms + self.decide_ms + self.apply_ms

    @property
    def within_limit(self) -> bool:
        """Whether the boundary kept to its 18 ms."""
        return self.total_ms <= limits.BOUNDARY_MS

    def timing(self) -> BoundaryTiming:
        """The event that carries the times."""
        return BoundaryTiming(
            epoch=self.epoch,
            gather_ms=self.gather_ms,
            decide_ms=self.decide_ms,
            apply_ms=self.apply_ms,
            outside_ms=dict(self.outside_ms),
        )
