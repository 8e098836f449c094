"""The schedule policy: plant exactly what the user names, where and when the user says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from leyline import Advance, Command, Decision, Germinate, Stage
from tamiyo.settling import SettlingRules, settle
from tamiyo.state import State


class SchedulePolicy:
    """Plants (epoch, site, blueprint) entries at the boundary that ends that 1-based epoch.

    The trial trains but does not gate: after one epoch in TRAINING the seed is grafted whatever
    its gain was. The counterfactual may still cull it.
    """

    name = "schedule"

    def __init__(self, schedule: Sequence[tuple[int, str, str]], settling: SettlingRules):
        self._schedule = tuple(schedule)
        self._settling = settling

    def decide(self, state: State) -> Decision:
        """Plant what is due, graft what was planted an epoch ago, settle the rest."""
        commands = settle(state, self._settling)
        commands += self._graft(state)
        taken: set[str] = set()
        due = [entry for entry in self._schedule if entry[0] == state.packet.epoch]
        for epoch, site, blueprint in due:
            seed = state.free_place(site, taken)
            taken.add(seed)
            cause = f"scheduled for epoch {epoch}"
            commands.append(Germinate(seed=seed, site=site, blueprint=blueprint, cause=cause))
        cause = f"{len(due)} planted by schedule" if due else "nothing to plant"
        return Decision(
            epoch=state.packet.epoch, policy=self.name, cause=cause, commands=tuple(commands)
        )

    def _graft(self, state: State) -> list[Command]:
        commands: list[Command] = []
        for row in state.in_stage(Stage.TRAINING):
            if row.epochs_in_stage < 1 or (state.packet.trials_possible and not row.tried):
                continue  # a trial waits for the next validation pass
            to, cause = Stage.GRAFTING, "scheduled; its trial does not gate"
            if row.error_count:
                to, cause = Stage.CANCELLED, "its trial failed"
            elif row.trial_gain is not None:
                cause += f" (gain {row.trial_gain:.4f})"
            elif not state.packet.trials_possible:
                cause = "scheduled; no trial is possible here, so it is grafted from zero"
            commands.append(Advance(seed=row.seed, to=int(to), cause=cause))
        return commands

    def state_dict(self) -> dict[str, Any]:
        """Nothing is remembered: the schedule is part of the config."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing is remembered."""
