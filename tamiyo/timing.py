"""When a race may be called: after the warm-up, within the window, below the cap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from msgspec import Meta

from leyline import LIFECYCLE, RiskLevel
from tamiyo.state import State

WARMUP_IF_UNKNOWN: Final = 2
"""Epochs before the first race of a run whose length is unknown."""
_EPOCHS_TO_GRAFT: Final = 2
"""From the call of a race to its winner at alpha 1: one for the trial, one for the graft."""

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Amount = Annotated[float, Meta(ge=0.0)]
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]


@dataclass(frozen=True, kw_only=True)
class TimingRules:
    """When races are called, of whatever kind."""

    warmup_fraction: Share = 0.1
    """Share of the run before the first race."""
    window_fraction: Share = 0.6
    """Share of the run within which the winner of the last race must be grafted."""
    max_grafts: Positive | None = None
    """Grafts that may stand in the model at once; None: as many as the budget allows."""


def why_no_race(state: State, rules: TimingRules, *, early: bool = False) -> str:
    """Why no race may be called now, in a line; empty if one may.

    Args:
        early: something has called for the first race before the warm-up is over.
    """
    packet = state.packet
    if packet.risk_level >= RiskLevel.ORANGE:
        return f"no race while the risk is {RiskLevel(packet.risk_level).name.lower()}"
    warmup = WARMUP_IF_UNKNOWN
    if packet.num_epochs:
        warmup = max(1, round(rules.warmup_fraction * packet.num_epochs))
    if packet.epoch < warmup and not early:
        return f"warming up until epoch {warmup}"
    last = rules.window_fraction * packet.num_epochs - _EPOCHS_TO_GRAFT
    if packet.num_epochs and packet.epoch > last:
        return "the growth window has closed"
    if grafts_left(state, rules) == 0:
        return f"growth has stopped: no more than {rules.max_grafts} grafts may stand"
    if not state.schema.candidates:
        return "no race: no blueprint that may race fits a site that may grow"
    return ""


def grafts_left(state: State, rules: TimingRules) -> int | None:
    """Grafts that may still be added to those that stand in the model; None: any number."""
    if rules.max_grafts is None:
        return None
    standing = sum(LIFECYCLE[row.stage].in_forward for row in state.rows)
    return max(0, rules.max_grafts - standing)
