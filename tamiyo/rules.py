"""The thresholds of the heuristic policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from tamiyo.early import EarlyRules
from tamiyo.ranking import RankingRules
from tamiyo.settling import SettlingRules
from tamiyo.spending import SpendingRules
from tamiyo.timing import Amount, Positive, Share, TimingRules


@dataclass(frozen=True, kw_only=True)
class HeuristicRules(SettlingRules, TimingRules, EarlyRules, RankingRules, SpendingRules):
    """The thresholds of the heuristic policy. Gains are in the unit of the user's loss."""

    max_candidates: Positive = 32
    """Candidates in one race."""
    max_grafts_per_race: Positive = 2
    """Candidates of one race that are grafted at most, each at a site of its own."""
    false_graft_rate: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.01
    """Chance that a race without any useful candidate grafts one (Bonferroni over candidates)."""
    first_gain_share: Share = 0.15
    """Share of the first graft's gain that every later one must exceed."""
    host_gain_share: Amount = 0.0
    """Share of what the host itself gained in as many steps that a candidate must exceed; 0: none.
    """
    min_gain: Amount = 1e-3
    """Gain below which nothing is grafted."""
    rent_per_host: Amount = 0.005
    """Gain that a candidate as large as the whole host must bring at least."""
    cost_power: Annotated[float, Meta(ge=0.0, le=16.0)] = 0.0
    """How much the work of a step counts: a gain is divided by (1 + step cost) to this power; 0:
    not at all."""
    max_misses: Positive = 2
    """Races in a row without a winner after which growth stops."""
