"""What a race cost, and which of its work was shared."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class RaceReport:
    """Counts of one race. A step is one candidate's on one batch."""

    flops: int = 0
    """FLOPs spent: proofs, recordings, training and held-out passes."""
    host_gain: float = math.nan
    """Held-out loss that the host saved in as many steps without a seed."""
    host_gain_error: float = math.nan
    """Standard error of that."""
    num_whole_steps: int = 0
    """Steps through the whole host."""
    num_replayed_steps: int = 0
    """Steps in which only what comes after the site was run."""
    num_grouped_steps: int = 0
    """Those of them that shared their pass with other candidates of the site."""
    recordings_size_bytes: int = 0
    """The most that recorded outputs took."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Why a site's candidates, or one candidate, did not share, by name."""

    def __str__(self) -> str:
        """One line for a log."""
        reasons = "".join(f"; {name}: {reason}" for name, reason in self.reasons.items())
        return (
            f"{self.num_grouped_steps} steps in groups, "
            f"{self.num_replayed_steps - self.num_grouped_steps} replayed alone, "
            f"{self.num_whole_steps} through the whole host, "
            f"recordings of {self.recordings_size_bytes} bytes{reasons}"
        )
