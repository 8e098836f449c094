"""Grafting what was planted a trial ago, whatever its gain was."""

from __future__ import annotations

from leyline import Advance, Command, Stage
from tamiyo.state import State


def graft_tried(state: State, reason: str) -> list[Command]:
    """Graft every seed that has had its trial; cancel those whose trial failed.

    Args:
        reason: why it was planted, in a word.
    """
    commands: list[Command] = []
    for row in state.in_stage(Stage.TRAINING):
        if row.epochs_in_stage < 1 or (state.packet.trials_possible and not row.tried):
            continue  # a trial waits for the next validation pass
        to, cause = Stage.GRAFTING, f"{reason}; its trial does not gate"
        if row.error_count:
            to, cause = Stage.CANCELLED, "its trial failed"
        elif row.trial_gain is not None:
            cause += f" (gain {row.trial_gain:.4f})"
        elif not state.packet.trials_possible:
            cause = f"{reason}; no trial is possible here, so it is grafted from zero"
        commands.append(Advance(seed=row.seed, to=int(to), cause=cause))
    return commands
