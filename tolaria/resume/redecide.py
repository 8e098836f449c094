"""Decisions made again: every boundary of a run, from the inputs that its journal holds.

The journal has the exact state that each decision rested on, so a policy of the same settings,
given those in order, decides the same. What it remembers goes back where the run went back.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import msgspec

from kasmina.guard import attempt, describe
from leyline import (
    Advance,
    Command,
    ContractError,
    Cull,
    Decision,
    Event,
    Fault,
    Germinate,
    RiskLevel,
    RunStarted,
    Schema,
    StatePacket,
    decode,
    encode,
)
from tamiyo import Controller, Policy
from tamiyo.risk.allowance import within

_WENT_BACK: Final = re.compile(r"restored .*; (?:(\d+) epochs?, )?\d+ steps? lost;")
"""What the response to a broken state says that it did (tolaria/rollback/response.py)."""
_HOLDS: Final = "growth holds:"
"""How the causes begin of decisions that a breaker or a rollback has made in a policy's place."""


class Redecided(NamedTuple):
    """One boundary: what the run decided, and what a policy decides now."""

    epoch: int
    was: Decision
    now: Decision | None
    """None if the journal holds no inputs for it, or the policy raised."""
    excuse: str
    """Why the run's decision was no answer of its policy: "late", "undone", "held" or "not
    recorded"; empty if it was one."""
    is_same: bool
    problem: str = ""
    """What the policy raised now; empty if it did not."""

    @property
    def verdict(self) -> str:
        """ "same", "different", or the excuse."""
        return self.excuse or ("same" if self.is_same else "different")


class Turn(NamedTuple):
    """A place where the run did not simply go on: a rollback, or a resume."""

    epoch: int
    """The last epoch before it."""
    to_epoch: int
    """The epoch at whose end it went on."""
    why: str
    """The fault; empty for a resume."""
    is_known: bool
    """Whether the journal holds the boundary that it went back to."""


def redecide(
    events: Iterable[Event], policy: Policy, *, is_own: bool = True
) -> Iterator[Redecided | Turn]:
    """Make every decision of a run again, without deadlines.

    Args:
        events: of the run, in the order of its journal.
        policy: who decides now, as it is at the beginning of a run.
        is_own: whether it is the run's own policy with the run's own settings, whose decisions
            must come out the same in every byte; of another one only the commands are compared.

    Yields:
        One Redecided for each boundary, and a Turn wherever the run went back or was resumed.
    """
    memory = _Memory(policy)
    controller = Controller(policy, _no_time, work_clock_s=_no_time)
    schemas: dict[int, Schema] = {}
    packet: StatePacket | None = None
    epoch = 0
    for event in events:
        match event:
            case Schema():
                schemas[event.schema_id] = event
            case StatePacket():
                packet = event
            case RunStarted() if event.resumed:
                yield Turn(epoch, event.epoch, "", memory.go_back(event.epoch))
            case Fault():
                lost = _epochs_lost(event)
                if lost is not None:
                    target = event.epoch - lost
                    yield Turn(event.epoch, target, event.what, memory.go_back(target))
            case Decision():
                schema = None if packet is None else schemas.get(packet.schema_id)
                epoch = event.epoch
                if packet is None or schema is None or packet.epoch != epoch:
                    excuse = _excuse(event) or "not recorded"
                    yield Redecided(epoch, event, None, excuse, is_same=False)
                else:
                    yield _ask(controller, memory, packet, schema, event, is_own=is_own)
                memory.keep(epoch)
                packet = None


class _Memory:
    """What the policy remembered after each boundary."""

    def __init__(self, policy: Policy):
        self._policy = policy
        self._states: dict[int, dict[str, Any]] = {}
        self.keep(0)

    def keep(self, epoch: int) -> None:
        self._states[epoch] = self.now()

    def now(self) -> dict[str, Any]:
        return copy.deepcopy(self._policy.state_dict())

    def load(self, state: dict[str, Any]) -> None:
        self._policy.load_state_dict(copy.deepcopy(state))

    def go_back(self, epoch: int) -> bool:
        """Remember what was remembered after that boundary; False if it is not known."""
        state = self._states.get(epoch)
        if state is not None:
            self.load(state)
        return state is not None


def _ask(
    controller: Controller,
    memory: _Memory,
    packet: StatePacket,
    schema: Schema,
    was: Decision,
    *,
    is_own: bool,
) -> Redecided:
    before = memory.now()
    now = attempt(lambda: _as_read(controller.decide(packet, schema), packet.risk_level, was))
    excuse = _excuse(was)
    if isinstance(now, Exception) or excuse:
        memory.load(before)  # such a boundary leaves no trace in the policy of the run either
    if isinstance(now, Exception):
        return Redecided(was.epoch, was, None, excuse, is_same=False, problem=describe(now))
    is_same = encode(now) == encode(was) if is_own else _moves(now) == _moves(was)
    return Redecided(was.epoch, was, now, excuse, is_same)


def _as_read(decision: Decision, risk_level: int, was: Decision) -> Decision:
    """The decision as the run's boundary read it, less what the risk forbade, before it was kept.

    How the risk came about the packet does not tell; that it was is the run's own word.
    """
    read = decode(encode(decision))
    if not isinstance(read, Decision):
        raise ContractError(f"the policy returned a {type(decision).__name__}, not a Decision")
    return msgspec.structs.replace(
        within(RiskLevel(risk_level), read),
        risk_level=was.risk_level,
        risk_causes=was.risk_causes,
        risk_by_chance=was.risk_by_chance,
    )


def _excuse(was: Decision) -> str:
    if was.late:
        return "late"
    if was.undone:
        return "undone"
    return "held" if was.cause.startswith(_HOLDS) else ""


def _epochs_lost(fault: Fault) -> int | None:
    """How many epochs a rollback went back; None if the fault led to none."""
    said = _WENT_BACK.match(fault.action)
    return None if said is None else int(said[1] or 0)


def _moves(decision: Decision) -> list[tuple[str, ...]]:
    """What is to be done to which seed, whatever the causes and the order."""
    return sorted(_move(command) for command in decision.commands)


def _move(command: Command) -> tuple[str, ...]:
    match command:
        case Germinate():
            return command.seed, "germinate", command.site, command.blueprint
        case Advance():
            return command.seed, "advance", str(command.to)
        case Cull():
            return command.seed, "cull", str(command.embargo_epochs)


def _no_time() -> float:
    """A clock on which nothing takes any time."""
    return 0.0
