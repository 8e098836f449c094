"""One epoch boundary: gather, decide, apply, each timed against its limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

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


@dataclass
class StageTimer:
    """Times named stages with a monotonic clock in seconds."""

    clock_s: Callable[[], float]
    took_ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add a block's time to a stage."""
        start_s = self.clock_s()
        try:
            yield
        finally:
            spent_ms = (self.clock_s() - start_s) * 1e3
            self.took_ms[name] = self.took_ms.get(name, 0.0) + spent_ms
