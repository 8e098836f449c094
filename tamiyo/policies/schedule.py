"""The schedule policy: plant exactly what the user names, where and when the user says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from leyline import Decision, Germinate
from tamiyo.settling import SettlingRules, settle
from tamiyo.state import State
from tamiyo.ungated import graft_tried


@dataclass(frozen=True, kw_only=True)
class ScheduleRules(SettlingRules):
    """What is planted, and how it is judged."""

    schedule: tuple[tuple[int, str, str], ...] = ()
    """(epoch, site, blueprint): what is planted at the boundary that ends that 1-based epoch."""


class SchedulePolicy:
    """Plants what is due at each boundary.

    The trial trains but does not gate: after one epoch in TRAINING the seed is grafted whatever
    its gain was. The counterfactual may still cull it.
    """

    name = "schedule"

    def __init__(self, rules: ScheduleRules | None = None):
        self._rules = rules if rules is not None else ScheduleRules()

    def decide(self, state: State) -> Decision:
        """Plant what is due, graft what was planted an epoch ago, settle the rest."""
        commands = settle(state, self._rules)
        commands += graft_tried(state, "scheduled")
        taken: set[str] = set()
        epoch_now = state.packet.epoch
        due = [entry for entry in self._rules.schedule if entry[0] == epoch_now]
        for epoch, site, blueprint in due:
            seed = state.free_place(site, taken)
            taken.add(seed)
            cause = f"scheduled for epoch {epoch}"
            commands.append(Germinate(seed=seed, site=site, blueprint=blueprint, cause=cause))
        later = sorted(entry[0] for entry in self._rules.schedule if entry[0] > epoch_now)
        return Decision(
            epoch=epoch_now,
            policy=self.name,
            cause=f"{len(due)} planted by schedule" if due else "nothing is due",
            commands=tuple(commands),
            next_step=f"the next is due at epoch {later[0]}" if later else "",
        )

    def state_dict(self) -> dict[str, Any]:
        """Nothing is remembered: the schedule is part of the config."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing is remembered."""
