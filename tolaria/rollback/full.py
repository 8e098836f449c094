"""The full tier: the newest valid checkpoint of the run, put into the live model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kasmina.slots.held_seeds import all_or_nothing
from kasmina.structure import match_structure
from leyline import CheckpointError, RollbackError
from tolaria.disk.checkpoint import load
from tolaria.disk.migrations import growth_states
from tolaria.disk.misfit import MISFIT
from tolaria.resume import rng_state
from tolaria.rollback.state import Parts

if TYPE_CHECKING:
    from tolaria.session import Session


def from_disk(parts: Parts, session: Session) -> tuple[int, int]:
    """Put the run's newest valid checkpoint back, in place.

    The journal, the run's directory and the count of epochs and steps stay: what happened has
    happened.

    Returns:
        The epoch and the step that it is of.

    Raises:
        EsperError: there is none, or it does not fit; the model may then hold parts of it.
    """
    path = session.newest_checkpoint()
    if path is None:
        raise RollbackError(f"{session.run.path} holds no valid checkpoint")
    return put_back(parts, path)


def put_back(parts: Parts, path: Path) -> tuple[int, int]:
    """Put one checkpoint of the run back, in place.

    Returns:
        The epoch and the step that it is of.

    Raises:
        CheckpointError: it is damaged or does not fit; the model may then hold parts of it.
    """
    state = load(path)
    growth = next(growth_states(state), None)
    if growth is None:
        raise CheckpointError(f"{path} holds no state of growth; it is of another run")
    try:
        _put_back(parts, state, growth)
        return int(growth["epoch"]), int(growth["step"])
    except MISFIT as error:
        raise CheckpointError(f"{path} does not fit the run any more: {error}") from error


def _put_back(parts: Parts, state: Mapping[str, Any], growth: Mapping[str, Any]) -> None:
    model, rates = parts.model, parts.rates
    with all_or_nothing(model):
        match_structure(model, state["state_dict"])
        model.load_state_dict(state["state_dict"])
    parts.executor.load_state_dict(growth["executor"])
    parts.controller.load_state_dict(growth["controller"])
    rates.reconcile({}, lambda _: ())
    rates.regroup(parts.executor.live_seeds(), growth["groups"])
    for optimizer, saved in zip(parts.optimizers, state["optimizer_states"], strict=True):
        optimizer.load_state_dict(saved)
        optimizer.zero_grad(set_to_none=True)
    schedulers = state.get("lr_schedulers") or state.get("schedulers") or []
    for scheduler, saved in zip(rates.schedulers, schedulers, strict=False):
        scheduler.load_state_dict(dict(saved))
    for scaler, saved in zip(parts.scalers, state.get("scalers", []), strict=False):
        scaler.load_state_dict(dict(saved))
    rates.load_state_dict(growth["rates"])
    rng_state.restore(growth["rng"])
