"""The thresholds of the heuristic policy."""

from __future__ import annotations

from dataclasses import dataclass, field

from tamiyo.settling import SettlingRules


@dataclass(frozen=True)
class HeuristicRules:
    """The thresholds of the heuristic policy. Gains are in the unit of the user's loss."""

    warmup_fraction: float = 0.1
    """Share of the run before the first race."""
    window_fraction: float = 0.6
    """Share of the run within which the winner of the last race must be grafted."""
    max_candidates: int = 32
    """Candidates in one race."""
    false_graft_rate: float = 0.01
    """Chance that a race without any useful candidate grafts one (Bonferroni over candidates)."""
    first_gain_share: float = 0.15
    """Share of the first graft's gain that every later one must exceed."""
    min_gain: float = 1e-3
    """Gain below which nothing is grafted."""
    rent_per_host: float = 0.005
    """Gain that a candidate as large as the whole host must bring at least."""
    max_misses: int = 2
    """Races in a row without a winner after which growth stops."""
    settling: SettlingRules = field(default_factory=SettlingRules)
