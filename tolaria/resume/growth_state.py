"""What a resumed run needs of the orchestrator, as plain values and tensors."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from torch import Tensor

from kasmina import Site
from tolaria.disk.migrations import FORMAT, growth_up_to_date
from tolaria.disk.misfit import refusing_misfits
from tolaria.disk.surroundings import Surroundings
from tolaria.live_run import LiveRun
from tolaria.resume import rng_state

_LOG = logging.getLogger("esper")
_MAX_EXAMPLE_SIZE_BYTES: Final = 16 * 1024 * 1024


_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class _Executor(msgspec.Struct, frozen=True):
    """Those of its executor."""

    table: dict[str, Any]
    blueprints: list[str]
    lifecycle: dict[str, int]
    ramps: dict[str, Any]
    ramp_steps: _Count
    trials_waived: str | None


class _Stated(msgspec.Struct, frozen=True):
    """The kinds of values of a growth state; the parts that take them over look further."""

    run_id: str
    journal_position: _Count
    epoch: _Count
    step: _Count
    schema_id: _Count
    surroundings: dict[str, str | int]
    flops: dict[str, int]
    executor: _Executor
    controller: dict[str, Any]
    breakers: dict[str, Any]
    groups: list[list[str]]
    rates: dict[str, Any]
    sites: list[dict[str, Any]]
    example: list[Any]
    seed_record: _Count = 0
    host_work: int | float = 0
    metrics: dict[str, float] = {}
    watch: dict[str, Any] = {}
    recovery: dict[str, Any] = {}


def growth_state(orchestrator: LiveRun) -> dict[str, Any]:
    """The growth side of a checkpoint; the model and optimizers travel beside it."""
    records = orchestrator.session.seed_records
    return {
        "format": FORMAT,
        "surroundings": msgspec.to_builtins(Surroundings.here()),
        "run_id": orchestrator.session.run.run_id,
        "journal_position": orchestrator.session.recorder.position,
        "seed_record": records.last_id_in_file if records is not None else 0,
        "epoch": orchestrator.epoch,
        "step": orchestrator.step,
        "flops": orchestrator.growth.flops.state_dict(),
        "executor": orchestrator.executor.state_dict(),
        "controller": orchestrator.controller.state_dict(),
        "metrics": dict(orchestrator.metrics),
        "breakers": orchestrator.breakers.state_dict(),
        "schema_id": orchestrator.gatherer.schema_id,
        "groups": orchestrator.rates.group_order(),
        "rates": orchestrator.rates.state_dict(),
        "watch": orchestrator.watch.state_dict(),
        "recovery": orchestrator.recovery.state_dict(),
        "sites": [site.to_dict() for site in orchestrator.executor.grounds.sites],
        "host_work": orchestrator.executor.grounds.host_work,
        "example": _small(orchestrator.growth.search.example),
        "rng": rng_state.capture(),
    }


def _refuse_unnumbered(orchestrator: LiveRun, num_sites: int, num_blueprints: int) -> None:
    """Refuse a table with seeds at sites or of blueprints whose numbers there are not."""
    table = orchestrator.executor.table
    for name, num in (("site", num_sites), ("blueprint", num_blueprints)):
        wrong = [number for number in table.column(name).tolist() if not -1 <= number < num]
        if wrong:
            raise ValueError(f"it has a seed of {name} {wrong[0]}, and there are {num}")


def _say_what_differs(written_on: Mapping[str, Any]) -> None:
    """Withdraw the promise of equal bits where it cannot be kept."""
    known = Surroundings(**written_on) if written_on else Surroundings.here()
    differences = known.differences(Surroundings.here())
    if differences:
        _LOG.warning(
            "since the checkpoint was written %s: training goes on from it, but its end may differ "
            "in bits from that of an undisturbed run",
            differences,
        )


def _small(example: tuple[Any, ...] | None) -> list[Any]:
    """The example call, if it is made of tensors that are not too large to keep."""
    if example is None or not all(isinstance(value, Tensor) for value in example):
        return []
    tensors = [value.detach().cpu() for value in example]
    return tensors if sum(t.nbytes for t in tensors) <= _MAX_EXAMPLE_SIZE_BYTES else []


def loop_state(orchestrator: LiveRun) -> dict[str, Any]:
    """A whole checkpoint of a hand-written loop."""
    return {
        "state_dict": orchestrator.model.state_dict(),
        "optimizer_states": [o.state_dict() for o in orchestrator.rates.optimizers],
        "schedulers": [s.state_dict() for s in orchestrator.schedulers],
        "scalers": [s.state_dict() for s in orchestrator.recovery.parts.scalers],
        "esper": growth_state(orchestrator),
    }


def restore_growth(orchestrator: LiveRun, state: Mapping[str, Any], *, rng: bool) -> None:
    """Take over a saved growth state; the model already carries its seeds. Nothing is written.

    The optimizers are regrouped to match, so that their own state can be loaded after this. What
    was written elsewhere loads too, and a line in the log takes the promise of equal bits back.

    Args:
        rng: whether the random streams are put back too.

    Raises:
        CheckpointError: it is not such a state, or does not fit; parts of it may be taken over.
    """
    with refusing_misfits("the checkpoint's state of growth"):
        _restore(orchestrator, dict(state))
        if rng:
            rng_state.restore(state["rng"])


def epoch_of(state: Mapping[str, Any]) -> int:
    """Epochs whose boundary had passed.

    Raises:
        CheckpointError: the state does not say.
    """
    with refusing_misfits("the checkpoint's state of growth"):
        return msgspec.convert(state["epoch"], _Count)


def rewind(orchestrator: LiveRun, state: Mapping[str, Any]) -> None:
    """Cut the journal back to a state that has been taken over, if it is of this very run.

    Raises:
        RunError: no record of the journal ends there; it is as it was.
    """
    recorder = orchestrator.session.recorder
    if state["run_id"] == recorder.run_id:
        orchestrator.replay(recorder.rewind(state["journal_position"]))


def _restore(orchestrator: LiveRun, state: dict[str, Any]) -> None:
    growth_up_to_date(state, {})
    msgspec.convert(state, _Stated)
    _say_what_differs(state["surroundings"])
    sites = [Site.from_dict(values) for values in state["sites"]]
    orchestrator.executor.grounds.open(sites)
    orchestrator.executor.grounds.host_work = state.get("host_work", 0)
    orchestrator.executor.load_state_dict(state["executor"])
    _refuse_unnumbered(orchestrator, len(sites), len(state["executor"]["blueprints"]))
    orchestrator.controller.load_state_dict(state["controller"])
    orchestrator.gatherer.schema_id = state["schema_id"]
    orchestrator.rates.regroup(orchestrator.executor.live_seeds(), state["groups"])
    orchestrator.rates.load_state_dict(state["rates"])
    orchestrator.watch.load_state_dict(state.get("watch", {}))
    orchestrator.recovery.load_state_dict(state.get("recovery", {}))
    orchestrator.epoch, orchestrator.step = state["epoch"], state["step"]
    orchestrator.epoch_end_step = state["step"]
    orchestrator.metrics = dict(state.get("metrics", {}))
    orchestrator.breakers.load_state_dict(state["breakers"])  # they count from the epoch
    orchestrator.growth.flops.load_state_dict(state["flops"])
    orchestrator.growth.search.example = tuple(state["example"]) or None
    orchestrator.growth.resume_wants()
