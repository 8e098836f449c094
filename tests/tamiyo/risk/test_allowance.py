"""What each level allows: one table, and decisions kept within it."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from leyline import Advance, Command, Cull, Decision, Germinate, RiskLevel, Stage
from tamiyo.risk.allowance import ALLOWANCES, allows, moves_alpha, within

PLANT = Germinate(seed="a/0", site="a", blueprint="conv", cause="race 1")
CULL = Cull(seed="a/1", cause="no gain", embargo_epochs=3)


def to(stage: Stage) -> Advance:
    return Advance(seed="a/2", to=int(stage), cause="due")


EVERY: list[Command] = [PLANT, CULL, *map(to, Stage)]
OUT = [CULL, *map(to, (Stage.DORMANT, Stage.CULLED, Stage.CANCELLED, Stage.ROLLED_BACK))]


def test_the_levels_allow_less_and_less() -> None:
    """Every level has its row; yellow forbids no command, orange planting alone, and from red on
    only what takes a seed out is left."""
    assert list(ALLOWANCES) == list(RiskLevel)
    left = {level: [c for c in EVERY if allows(level, c)] for level in RiskLevel}
    assert left[RiskLevel.GREEN] == left[RiskLevel.YELLOW] == EVERY
    assert left[RiskLevel.ORANGE] == EVERY[1:]
    assert left[RiskLevel.RED] == left[RiskLevel.CRITICAL] == [c for c in EVERY if c in OUT]


def test_alpha_moves_in_every_step_in_every_other_or_in_none() -> None:
    """Over ten steps: ten times, five times, never."""
    moves = [sum(moves_alpha(level, step) for step in range(1, 11)) for level in RiskLevel]
    assert moves == [10, 5, 5, 0, 0]


@given(st.lists(st.sampled_from(EVERY)), st.sampled_from(RiskLevel))
def test_a_decision_keeps_what_is_allowed_in_its_order(
    commands: list[Command], level: RiskLevel
) -> None:
    """Nothing else of it changes, but that its cause says what was left out if anything was."""
    decision = Decision(epoch=3, policy="mine", cause="why", commands=tuple(commands))
    kept = within(level, decision)
    assert kept.commands == tuple(c for c in commands if allows(level, c))
    assert msgspec.structs.replace(kept, commands=decision.commands, cause="why") == decision
    assert (kept.cause == "why") == (len(kept.commands) == len(commands))


def test_the_cause_counts_what_was_left_out_by_kind() -> None:
    """In words that name the level."""
    commands = (PLANT, PLANT, to(Stage.GRAFTING), CULL)
    decision = Decision(epoch=3, policy="mine", cause="race 1", commands=commands)
    cause = within(RiskLevel.RED, decision).cause
    assert cause == "race 1; left out because the risk is red: 2 germinate, 1 advance"
