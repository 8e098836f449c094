"""What each level of risk still allows, whoever asks for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from leyline import Advance, Command, Decision, Germinate, RiskLevel, Stage

_OUT: Final = (Stage.DORMANT, Stage.CULLED, Stage.CANCELLED, Stage.ROLLED_BACK)
"""Where a seed goes to leave the network: no level holds that up."""


class Allowance(NamedTuple):
    """What goes on at one level."""

    alpha_every_steps: int
    """Alpha moves in every so-manieth training step; 0 is never."""
    plants: bool
    """Whether anything is planted, and so whether a race is called."""
    moves_on: bool
    """Whether grafts begin, seeds settle and trials and counterfactuals are measured."""


ALLOWANCES: Final[Mapping[RiskLevel, Allowance]] = MappingProxyType(
    {
        RiskLevel.GREEN: Allowance(1, plants=True, moves_on=True),
        RiskLevel.YELLOW: Allowance(2, plants=True, moves_on=True),
        RiskLevel.ORANGE: Allowance(2, plants=False, moves_on=True),
        RiskLevel.RED: Allowance(0, plants=False, moves_on=False),
        RiskLevel.CRITICAL: Allowance(0, plants=False, moves_on=False),
    }
)


def moves_alpha(level: RiskLevel, step: int) -> bool:
    """Whether alpha moves after a training step, counted from 1 over the whole run."""
    every = ALLOWANCES[level].alpha_every_steps
    return every > 0 and step % every == 0


def allows(level: RiskLevel, command: Command) -> bool:
    """Whether a command may be carried out; what takes a seed out always may."""
    allowance = ALLOWANCES[level]
    if isinstance(command, Germinate):
        return allowance.plants
    return allowance.moves_on or not isinstance(command, Advance) or command.to in _OUT


def within(level: RiskLevel, decision: Decision) -> Decision:
    """The decision without what the level forbids; its cause names how much was left out."""
    kept = tuple(command for command in decision.commands if allows(level, command))
    if len(kept) == len(decision.commands):
        return decision
    left_out = Counter(
        str(command.__struct_config__.tag)
        for command in decision.commands
        if not allows(level, command)
    )
    words = ", ".join(f"{number} {kind}" for kind, number in left_out.items())
    cause = f"{decision.cause}; left out because the risk is {level.name.lower()}: {words}"
    return msgspec.structs.replace(decision, commands=kept, cause=cause)
