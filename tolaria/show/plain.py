"""Parts of a run's view as plain values that JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import msgspec

from leyline import BoundaryTiming, Decision
from tolaria.show.latency import boundary_ms
from tolaria.show.lives import SeedLife
from tolaria.show.view import RunView


def view_dict(view: RunView) -> dict[str, Any]:
    """A whole run; a number that was not measured is None."""
    fields: dict[str, Any] = {
        "run_id": view.run_id,
        "model": view.model,
        "status": view.status,
        "epoch": view.epoch,
        "num_epochs": view.num_epochs,
        "step": view.step,
        "host_parameters": view.host_parameters,
        "parameters": view.parameters,
        "metrics": {str(epoch): view.metrics[epoch] for epoch in view.epochs},
        "final_metrics": view.ended.metrics if view.ended else {},
        "flops": view.flops_spent,
        "boundaries": [boundary_dict(timing) for timing in view.boundaries],
        "seeds": [seed_dict(life) for life in view.seeds],
        "decisions": [decision_dict(decision) for decision in view.decisions],
        "field_reports": [msgspec.structs.asdict(report) for report in view.field_reports],
        "refusals": [msgspec.structs.asdict(report) for report in view.refusals],
        "sites": view.sites and msgspec.structs.asdict(view.sites),
        "lifecycle": view.lifecycle and msgspec.structs.asdict(view.lifecycle),
        "learning_rates": view.learning_rates and msgspec.structs.asdict(view.learning_rates),
        "faults": [msgspec.structs.asdict(fault) for fault in view.faults],
        "breakers": [msgspec.structs.asdict(change) for change in view.breaker_changes],
        "bus_report": view.bus and msgspec.structs.asdict(view.bus),
        "risk_changes": [msgspec.structs.asdict(change) for change in view.risk_changes],
        "latency_alerts": [msgspec.structs.asdict(alert) for alert in view.alerts],
    }
    plain: dict[str, Any] = without_nan(fields)
    return plain


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
        "late": decision.late,
        "undone": decision.undone,
        "next_step": decision.next_step,
        "risk_level": decision.risk_level,
        "risk_causes": list(decision.risk_causes),
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
