"""The eleven stages of a seed and the one table of what each does and leaves to.

Nothing else in Esper states a transition, a minimum stay or a guard; all of it is read from here.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from enum import IntEnum
from functools import partial
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgspec

from leyline.errors import LifecycleError


class Stage(IntEnum):
    """Where a seed is in its life; the number is what the state table and the bus carry."""

    DORMANT = 0
    GERMINATED = 1
    TRAINING = 2
    GRAFTING = 3
    STABILIZATION = 4
    EVALUATING = 5
    FINE_TUNING = 6
    FOSSILIZED = 7
    CULLED = 8
    CANCELLED = 9
    ROLLED_BACK = 10


class StageRule(NamedTuple):
    """What one stage means for the forward pass, for training and for the next stage."""

    in_forward: bool
    """The seed is part of the live host's forward pass (once its alpha is above 0)."""
    trains_in_host: bool
    """The live optimizer moves the seed's parameters."""
    minimum_epochs: int
    """Live epochs a seed stays before any transition but a cull or a rollback."""
    leaves_to: tuple[Stage, ...]


_S = Stage
LIFECYCLE: Final[Mapping[Stage, StageRule]] = MappingProxyType(
    {
        _S.DORMANT: StageRule(False, False, 0, (_S.GERMINATED,)),
        _S.GERMINATED: StageRule(False, False, 0, (_S.TRAINING, _S.CANCELLED)),
        _S.TRAINING: StageRule(False, False, 0, (_S.GRAFTING, _S.CULLED, _S.CANCELLED)),
        _S.GRAFTING: StageRule(True, True, 1, (_S.STABILIZATION, _S.ROLLED_BACK)),
        _S.STABILIZATION: StageRule(True, False, 1, (_S.EVALUATING, _S.ROLLED_BACK)),
        _S.EVALUATING: StageRule(True, False, 1, (_S.FINE_TUNING, _S.CULLED, _S.ROLLED_BACK)),
        _S.FINE_TUNING: StageRule(True, True, 1, (_S.FOSSILIZED, _S.CULLED, _S.ROLLED_BACK)),
        _S.FOSSILIZED: StageRule(True, True, 0, ()),
        _S.CULLED: StageRule(False, False, 0, (_S.DORMANT,)),
        _S.CANCELLED: StageRule(False, False, 0, (_S.DORMANT,)),
        _S.ROLLED_BACK: StageRule(False, False, 0, (_S.DORMANT,)),
    }
)
"""The rule of every stage."""

TRANSITIONS: Final[Mapping[Stage, frozenset[Stage]]] = MappingProxyType(
    {stage: frozenset(rule.leaves_to) for stage, rule in LIFECYCLE.items()}
)
"""The stages that each stage leaves to."""

WITHDRAWALS: Final = frozenset({_S.CULLED, _S.CANCELLED, _S.ROLLED_BACK})
"""Ends that never wait for a minimum stay: a bad seed must be able to go at once."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a seed when a transition is asked for. None is "not measured"."""

    epochs_in_stage: int
    blueprint_proven: bool | None = None
    """Shape, dtype, device and finiteness of the blueprint's output were checked."""
    trial_settled: bool | None = None
    """The trial was measured, or cannot be run here and was waived by name."""
    alpha: float | None = None
    """Blend weight now, 0 to 1."""
    counterfactual_gain: float | None = None
    """Held-out loss with alpha forced to 0 minus loss as it is, in the loss's own unit."""
    embargo_epochs_left: int | None = None


class Guard(NamedTuple):
    """A named condition on one edge of the table, as data: it tests a number and a column alike."""

    name: str
    field: str
    """The field of Evidence, or the column of that name, that is tested."""
    test: Callable[[Any], Any]
    """True where the value lets the seed pass; False where it is NaN."""
    sentence: str
    """Why a measured value is refused, with the value as {}."""
    missing: str
    """Why a value that is None or NaN is refused."""

    def refusal(self, evidence: Evidence) -> str | None:
        """Why the guard refuses, or None."""
        value = getattr(evidence, self.field)
        if value is None or not _is_number(value):
            return self.missing
        return None if self.test(value) else self.sentence.format(value)


def _is_number(value: Any) -> Any:
    """Infinity is a measurement, and what a seed that breaks the host is worth."""
    return operator.eq(value, value)


_UNPROVEN: Final = "its blueprint has not been proven to fit"
_UNTRIED: Final = "its trial has neither been measured nor waived"
_UNMEASURED: Final = "its counterfactual gain has not been measured"
_PROVEN: Final = Guard(
    "blueprint_proven", "blueprint_proven", partial(operator.eq, True), _UNPROVEN, _UNPROVEN
)
_SETTLED: Final = Guard(
    "trial_settled", "trial_settled", partial(operator.eq, True), _UNTRIED, _UNTRIED
)
_AT_ONE: Final = Guard(
    "alpha_is_one",
    "alpha",
    partial(operator.eq, 1.0),
    "its alpha is {:g}, not 1",
    "its alpha is unknown",
)
_MEASURED: Final = Guard(
    "counterfactual_measured", "counterfactual_gain", _is_number, _UNMEASURED, _UNMEASURED
)
_EMBARGO_OVER: Final = Guard(
    "embargo_over",
    "embargo_epochs_left",
    partial(operator.ge, 0),
    "its embargo has {} epochs left",
    "its embargo is unknown",
)

GUARDS: Final[Mapping[tuple[Stage, Stage], tuple[Guard, ...]]] = MappingProxyType(
    {
        (_S.GERMINATED, _S.TRAINING): (_PROVEN,),
        (_S.TRAINING, _S.GRAFTING): (_SETTLED,),
        (_S.GRAFTING, _S.STABILIZATION): (_AT_ONE,),
        (_S.EVALUATING, _S.FINE_TUNING): (_MEASURED,),
        (_S.EVALUATING, _S.CULLED): (_MEASURED,),
        (_S.CULLED, _S.DORMANT): (_EMBARGO_OVER,),
        (_S.ROLLED_BACK, _S.DORMANT): (_EMBARGO_OVER,),
    }
)
"""The guards of every edge that has any."""


class Edge(NamedTuple):
    """All that one legal transition asks for, read from the tables above."""

    minimum_epochs: int
    guards: tuple[Guard, ...]


EDGES: Final = tuple(
    tuple(
        Edge(0 if to in WITHDRAWALS else LIFECYCLE[was].minimum_epochs, GUARDS.get((was, to), ()))
        if to in LIFECYCLE[was].leaves_to
        else None
        for to in _S
    )
    for was in _S
)
"""EDGES[was][to]: what that transition asks for, None where there is no such transition."""

SOURCES: Final = tuple(sum(1 << was for was in _S if to in LIFECYCLE[was].leaves_to) for to in _S)
"""SOURCES[to]: bit `was` is set if that stage leaves to `to`; shifted by a stage, or by a column of
them, it answers for each whether the transition exists."""


def refusal(was: Stage, asked: Stage, evidence: Evidence) -> str | None:
    """Say why a seed may not go from one stage to another now, or None if it may."""
    edge = EDGES[was][asked]
    if edge is None:
        return "the lifecycle has no such transition"
    if evidence.epochs_in_stage < edge.minimum_epochs:
        return f"it has stayed {evidence.epochs_in_stage} of at least {edge.minimum_epochs} epochs"
    for guard in edge.guards:
        reason = guard.refusal(evidence)
        if reason is not None:
            return f"{reason} (guard {guard.name})"
    return None


def allowed(stage: Any, asked: Stage, evidence: Mapping[str, Any]) -> Any:
    """The same answer for a whole column of seeds at once.

    Args:
        stage: an integer column, such as a numpy array; row i is a seed's stage.
        evidence: columns by the names of Evidence's fields; NaN is "not measured". One that a
            guard asks for and that is left out refuses.

    Returns:
        A boolean column: True where `refusal` would be None.
    """
    may = SOURCES[asked] >> stage & 1 == 1
    for was in _S:
        edge = EDGES[was][asked]
        if edge is None or not (edge.minimum_epochs or edge.guards):
            continue
        elsewhere = stage != was
        if edge.minimum_epochs:
            may &= elsewhere | (evidence["epochs_in_stage"] >= edge.minimum_epochs)
        for guard in edge.guards:
            column = evidence.get(guard.field)
            may &= elsewhere if column is None else elsewhere | guard.test(column)
    return may


def validate(seed: str, was: Stage, asked: Stage, evidence: Evidence) -> None:
    """Raise LifecycleError if the seed may not make this transition now."""
    reason = refusal(was, asked, evidence)
    if reason is not None:
        leaves_to = tuple(stage.name for stage in LIFECYCLE[was].leaves_to)
        raise LifecycleError(seed, was.name, asked.name, leaves_to, reason)
