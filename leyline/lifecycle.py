"""The eleven stages of a seed and the one table of what each does and leaves to.

Nothing else in Esper states a transition, a minimum stay or a guard; all of it is read from here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Final, NamedTuple

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
    """A named condition on one edge of the table; the check answers why not, or None."""

    name: str
    refusal: Callable[[Evidence], str | None]


def _blueprint_proven(evidence: Evidence) -> str | None:
    return None if evidence.blueprint_proven else "its blueprint has not been proven to fit"


def _trial_settled(evidence: Evidence) -> str | None:
    return None if evidence.trial_settled else "its trial has neither been measured nor waived"


def _alpha_is_one(evidence: Evidence) -> str | None:
    if evidence.alpha is None:
        return "its alpha is unknown"
    return None if evidence.alpha == 1.0 else f"its alpha is {evidence.alpha:g}, not 1"


def _counterfactual_measured(evidence: Evidence) -> str | None:
    missing = evidence.counterfactual_gain is None
    return "its counterfactual gain has not been measured" if missing else None


def _embargo_over(evidence: Evidence) -> str | None:
    left = evidence.embargo_epochs_left
    if left is None:
        return "its embargo is unknown"
    return None if left <= 0 else f"its embargo has {left} epochs left"


GUARDS: Final[Mapping[tuple[Stage, Stage], tuple[Guard, ...]]] = MappingProxyType(
    {
        (_S.GERMINATED, _S.TRAINING): (Guard("blueprint_proven", _blueprint_proven),),
        (_S.TRAINING, _S.GRAFTING): (Guard("trial_settled", _trial_settled),),
        (_S.GRAFTING, _S.STABILIZATION): (Guard("alpha_is_one", _alpha_is_one),),
        (_S.EVALUATING, _S.FINE_TUNING): (
            Guard("counterfactual_measured", _counterfactual_measured),
        ),
        (_S.EVALUATING, _S.CULLED): (Guard("counterfactual_measured", _counterfactual_measured),),
        (_S.CULLED, _S.DORMANT): (Guard("embargo_over", _embargo_over),),
        (_S.ROLLED_BACK, _S.DORMANT): (Guard("embargo_over", _embargo_over),),
    }
)
"""The guards of every edge that has any."""


def refusal(was: Stage, asked: Stage, evidence: Evidence) -> str | None:
    """Say why a seed may not go from one stage to another now, or None if it may."""
    rule = LIFECYCLE[was]
    if asked not in rule.leaves_to:
        return "the lifecycle has no such transition"
    if asked not in WITHDRAWALS and evidence.epochs_in_stage < rule.minimum_epochs:
        return f"it has stayed {evidence.epochs_in_stage} of at least {rule.minimum_epochs} epochs"
    for guard in GUARDS.get((was, asked), ()):
        reason = guard.refusal(evidence)
        if reason is not None:
            return f"{reason} (guard {guard.name})"
    return None


def validate(seed: str, was: Stage, asked: Stage, evidence: Evidence) -> None:
    """Raise LifecycleError if the seed may not make this transition now."""
    reason = refusal(was, asked, evidence)
    if reason is not None:
        allowed = tuple(stage.name for stage in LIFECYCLE[was].leaves_to)
        raise LifecycleError(seed, was.name, asked.name, allowed, reason)
