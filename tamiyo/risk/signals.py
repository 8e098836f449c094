"""Signals: what one boundary is judged by, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

from leyline import RiskLevel


@dataclass(frozen=True, kw_only=True)
class Chance:
    """What time, memory and disks have to say: nothing that a resumed run finds again."""

    overruns_in_a_row: int = 0
    """Boundaries, up to the last, that took longer than they may."""
    memory_share: float = 0.0
    """Memory in use, as a share of its limit; 0 without a limit."""
    num_short_since_rollback: int = 0
    """Boundaries in a row at which memory was above its limit, since a rollback for want of it."""
    saves_held: bool = False
    """Whether checkpoints cannot be written for now."""
    replayed: RiskLevel | None = None
    """What all this came to where the run that is resumed was before; then only this counts."""


@dataclass(frozen=True, kw_only=True)
class Signals:
    """What was seen since the boundary before. More of anything is never less of a risk."""

    num_outliers: int = 0
    """Finite losses, gradient norms and metrics far above their usual ones."""
    num_spikes: int = 0
    """Times that so many of those came in a row that they are a spike."""
    num_non_finite: int = 0
    """Losses, gradients, metrics and parameters that were NaN or infinite and made the run go
    back."""
    num_rollbacks: int = 0
    """Times that the run went back; a single guarded step that was undone leaves no trace."""
    has_unsettled: bool = False
    """Whether there is a graft that has still to settle."""
    gradient_norm: float | None = None
    """Median of the last usual gradient norms; None if the loop does not tell them."""
    gradient_variance: float | None = None
    """Their variance."""
    num_breakers_open: int = 0
    """Of those around policy, executor and learning rates."""
    chance: Chance = Chance()
