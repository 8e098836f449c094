"""Vetting: what a policy that is not Esper's own has answered, read as a decision or refused."""

from __future__ import annotations

from typing import Final

import msgspec

from leyline import Command, ContractError, Cull, Decision, Germinate, PolicyError, decode
from tamiyo.state import State

_MAX_COMMANDS: Final = 4096
_MAX_EMBARGO_EPOCHS: Final = 2**31 - 1
_MAX_CAUSE: Final = 10_000
_THEIRS: Final = {"epoch", "policy", "cause", "commands", "scores", "next_step"}
"""What a policy may say; the rest of a decision is added to it."""


def vetted(answer: bytes, state: State, name: str) -> Decision:
    """The decision in these bytes, under the policy's own name.

    Args:
        answer: an encoded message.
        state: what it decides on.
        name: the name under which the policy is registered.

    Raises:
        PolicyError: it is no decision on this state; nothing of it is used.
    """
    try:
        read = decode(answer)
    except ContractError as error:
        raise PolicyError(f"policy {name!r} returned what cannot be read: {error}") from error
    if not isinstance(read, Decision):
        raise PolicyError(f"policy {name!r} returned a {type(read).__name__}, not a Decision")
    if read.epoch != state.packet.epoch:
        raise PolicyError(
            f"policy {name!r} decided for epoch {read.epoch}, but epoch {state.packet.epoch} ends"
        )
    bare = Decision(epoch=read.epoch, policy=read.policy, cause=read.cause)
    for field in set(bare.__struct_fields__) - _THEIRS:
        if getattr(read, field) != getattr(bare, field):
            raise PolicyError(f"policy {name!r} set {field!r}, which is not the policy's to say")
    if max(len(read.cause), len(read.next_step)) > _MAX_CAUSE:
        raise PolicyError(f"policy {name!r} gave a cause of over {_MAX_CAUSE:,} characters")
    if len(read.commands) > _MAX_COMMANDS:
        raise PolicyError(
            f"policy {name!r} gave {len(read.commands):,} commands; at most {_MAX_COMMANDS:,} fit "
            "in a boundary"
        )
    known = {row.seed for row in state.rows}
    for command in read.commands:
        fault = _fault(command, state, known)
        if fault:
            raise PolicyError(f"policy {name!r} asked for what cannot be: {fault}")
    return msgspec.structs.replace(read, policy=name)


def _fault(command: Command, state: State, known: set[str]) -> str:
    """What is wrong with a command whatever the lifecycle says; empty if nothing is."""
    if isinstance(command, Germinate):
        if (command.site, command.blueprint) in state.candidates:
            return ""
        return f"no candidate is {command.blueprint!r} at {command.site!r}"
    if command.seed not in known:
        return f"there is no seed {command.seed!r} that is not dormant"
    if isinstance(command, Cull) and not 0 <= command.embargo_epochs <= _MAX_EMBARGO_EPOCHS:
        return f"an embargo of {command.embargo_epochs} epochs"
    return ""
