"""Which policy a config asks for."""

from __future__ import annotations

from tamiyo import (
    HeuristicPolicy,
    HeuristicRules,
    HoldPolicy,
    Policy,
    SchedulePolicy,
    SettlingRules,
)
from tolaria.config import EsperConfig


def build_policy(config: EsperConfig) -> Policy:
    """Build the policy named in a config; the config has checked the name."""
    settling = SettlingRules(veto=config.veto, embargo_epochs=config.embargo_epochs)
    if not config.grows:
        return HoldPolicy()
    if config.policy == "schedule":
        return SchedulePolicy(config.schedule, settling)
    return HeuristicPolicy(HeuristicRules(max_candidates=config.max_candidates, settling=settling))
