"""The stage timer: where the time of a boundary went."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


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
