"""The response: what the run does when a trigger says that it is broken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leyline import CheckpointError, Event, NonFiniteError, RiskChanged, RiskLevel
from tolaria.boundary.field_reports import field_reports
from tolaria.live_run import LiveRun
from tolaria.rollback.recovery import all_finite
from tolaria.rollback.watch import Broken


def respond(esper: LiveRun, broken: Broken, *, epoch: int, batch: Any = None, lag: int = 0) -> None:
    """Go back to the last good state, and say what that cost.

    Args:
        epoch: the epoch that is broken, from 1.
        batch: the batch of the running step, if at hand.
        lag: by how many steps the news is late; the batch is then not the one that did it.

    Raises:
        NonFiniteError: it cannot go on; see Recovery.recover.
    """
    step, number = esper.step - lag, esper.step - lag - esper.epoch_end_step
    place = f"epoch {epoch}, step {step} (batch {number} of the epoch)"
    try:
        back = esper.recovery.recover(
            broken.what,
            None if lag else batch,
            epoch=epoch,
            step=esper.step,
            where=place,
            in_one_step=broken.in_one_step,
        )
    except NonFiniteError as error:
        esper.fault(broken.where, str(error), "the run stops")
        change = RiskChanged(
            epoch=esper.epoch,
            step=esper.step,
            was=esper.watch.risk.level,
            now=RiskLevel.CRITICAL,
            causes=(str(error),),
        )
        esper.session.record(change)
        raise NonFiniteError(f"{error}; {way_on(esper)}") from error
    if back.reports or not (esper.recovery.guards_steps and broken.in_one_step):
        # A single step that was undone leaves no trace: the run is as if it had not been.
        esper.watch.note_rollback(broken)
    esper.growth.resume_wants()
    named = ", ".join(report.seed for report in back.reports) or "no seed to blame"
    lost = _count(esper.step - back.step, "step")
    if esper.epoch > back.epoch:
        lost = f"{_count(esper.epoch - back.epoch, 'epoch')}, {lost}"
    action = f"restored {back.source}; {lost} lost; taken out: {named}"
    esper.fault(broken.where, broken.what, action)
    table, view = esper.executor.table, esper.session.recorder.view
    judged = field_reports(table, view, back.reports, step=esper.step, metrics={})
    events: list[Event] = [*back.reports, *judged]
    for event in events:
        esper.session.record(event)


def way_on(esper: LiveRun) -> str:
    """How a run that has been ended can go on, in words."""
    try:
        path = esper.session.newest_checkpoint() if esper.config.checkpoint else None
    except CheckpointError as error:
        return f"whether there is a checkpoint to go on from is not known: {error}"
    if path is None:
        return "there is no checkpoint to go on from"
    return (
        f"then go on from {path}: with `esper train --resume`, resume=True in a loop of your own, "
        "ckpt_path in Trainer.fit"
    )


def respond_at_boundary(esper: LiveRun, metrics: Mapping[str, float]) -> bool:
    """Look whether the epoch that ends was a good one; returns whether the run has gone back.

    Raises:
        NonFiniteError: it was not, and the run cannot go on.
    """
    recovery = esper.recovery
    broken = esper.watch.at_boundary(esper.epoch, metrics, blamable=recovery.has_unsettled)
    if broken is None and recovery.newest is not None and not all_finite(esper.model):
        broken = Broken("parameters", "a parameter is not finite", is_finite=False)
    if broken is not None:
        respond(esper, broken, epoch=esper.epoch)
    return broken is not None


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
