"""The policies that come with Esper."""

from __future__ import annotations

from typing import Final

from tamiyo.policies.definition import NoRules, PolicyKind
from tamiyo.policies.heuristic import HeuristicPolicy
from tamiyo.policies.hold import HoldPolicy
from tamiyo.policies.random_choice import RandomPolicy, RandomRules
from tamiyo.policies.schedule import SchedulePolicy, ScheduleRules
from tamiyo.rules import HeuristicRules

BUILT_IN: Final = (
    PolicyKind("heuristic", HeuristicPolicy, HeuristicRules, built_in=True),
    PolicyKind("schedule", SchedulePolicy, ScheduleRules, built_in=True),
    PolicyKind("random", RandomPolicy, RandomRules, built_in=True),
    PolicyKind("hold", lambda _: HoldPolicy(), NoRules, built_in=True),
)
