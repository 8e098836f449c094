"""The thresholds of the risk engine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RiskRules:
    """Where each level begins; docs/risk.md has them as a table. All count from the boundary before
    if nothing else is said."""

    calm_boundaries: int = 2
    """Boundaries in a row with signs of a lower level only, after which the level falls by one."""
    window_boundaries: int = 10
    """Boundaries over which rollbacks are counted together."""
    outliers_yellow: int = 3
    """Values that stood out."""
    gradient_yellow: float = 4.0
    """Gradient norm, as a multiple of its running median."""
    gradient_orange: float = 16.0
    """The same, while a graft has still to settle."""
    variance_yellow: float = 16.0
    """Variance of the gradient norm, as a multiple of its running median."""
    variance_orange: float = 256.0
    """The same, while a graft has still to settle."""
    rollbacks_orange: int = 2
    """Rollbacks within the window; one since the boundary before is red."""
    rollbacks_critical: int | None = None
    """Rollbacks within the window; None: the run never ends for them."""
    overruns_yellow: int = 3
    """Boundaries in a row over their time; that alone is never more than yellow."""
    memory_yellow: float = 0.9
    """Memory in use, as a share of its limit; above 1 is orange."""
    memory_boundaries_critical: int = 3
    """Boundaries in a row above the limit, from one at which the run went back for it."""
    breakers_orange: int = 2
    """Breakers open at once; one is yellow."""
