"""Parts of a run's view as plain values that JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import msgspec

from leyline import BoundaryTiming, Decision
from tolaria.show.latency import boundary_ms
from tolaria.show.lives import SeedLife


def boundary_dict(timing: BoundaryTiming) -> dict[str, Any]:
    """One boundary's milliseconds."""
    return msgspec.structs.asdict(timing) | {"total_ms": boundary_ms(timing).total}


def seed_dict(life: SeedLife) -> dict[str, Any]:
    """One life of a seed."""
    return {
        "seed": life.seed,
        "life": life.life,
        "site": life.site,
        "blueprint": life.blueprint,
        "stage": life.stage.name,
        "alpha": life.alpha,
        "parameters": life.parameters,
        "trial_gain": life.trial.value,
        "trial_error": life.trial.error,
        "counterfactual_gain": life.counterfactual.value,
        "counterfactual_error": life.counterfactual.error,
        "history": [stage.name for stage in life.path],
        "cause": life.cause,
    }


def decision_dict(decision: Decision) -> dict[str, Any]:
    """One decision; a command's "kind" is its tag in the contract."""
    return {
        "epoch": decision.epoch,
        "policy": decision.policy,
        "cause": decision.cause,
        "commands": [
            {"kind": command.__struct_config__.tag} | msgspec.structs.asdict(command)
            for command in decision.commands
        ],
        "scores": [msgspec.structs.asdict(score) for score in decision.scores],
    }


def without_nan(value: Any) -> Any:
    """Replace every number that JSON cannot hold by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [without_nan(item) for item in value]
    return value
