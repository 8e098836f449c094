"""A stretch: the steps between two boundaries, an epoch or `boundary_every_steps` of them."""

from __future__ import annotations

from typing import Final

from leyline import BoundaryTiming
from tolaria.boundary.report import BoundaryReport
from tolaria.boundary.sequence import epoch_metrics, pass_boundary
from tolaria.boundary.stage_timer import StageTimer
from tolaria.live_run import LiveRun
from tolaria.resume.saving import save

STEP_LOSS: Final = "step_loss"
"""The metric that a run with `boundary_every_steps` has beside those of its epochs."""


def end_stretch(esper: LiveRun, *, ends_epoch: bool) -> BoundaryReport:
    """Pass the boundary that ends a stretch.

    Args:
        ends_epoch: whether the epoch ends here too: then there are metrics, and a checkpoint is
            committed. Elsewhere the last epoch's metrics stand beside the mean loss of the steps.
    """
    outside = StageTimer(esper.clock_s, esper.carried_ms)
    esper.carried_ms = {}
    by_steps = esper.config.boundary_every_steps is not None
    last = esper.last_report
    esper.breakers.note_bus(*esper.session.bus.health())
    if by_steps and ends_epoch and last is not None and not esper.steps_since_boundary:
        esper.session.record(epoch_metrics(esper, esper.metrics))
        report = last
    else:
        step_loss = {STEP_LOSS: esper.mean_loss.take()} if by_steps else {}
        fresh = step_loss | esper.metrics if ends_epoch else step_loss
        known = esper.metrics | step_loss
        report = pass_boundary(esper, known, fresh, outside, ends_epoch=ends_epoch)
    if ends_epoch:
        esper.epoch_end_step = esper.step
    if ends_epoch and esper.in_plain_loop and esper.config.checkpoint:
        save(esper, None, outside)
    if report is last:
        esper.carried_ms = outside.took_ms
    else:
        esper.last_report = report
        _record_times(esper, report.timing())
    return report


def _record_times(esper: LiveRun, timing: BoundaryTiming) -> None:
    esper.session.record(timing)
    for alert in esper.latency.observe(timing):
        esper.session.record(alert)
    bus = esper.session.bus.report(timing.epoch)
    if bus is not None:
        esper.session.record(bus)
