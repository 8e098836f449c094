"""A boundary with the long work around it: what is measured before, and what is told after."""

from __future__ import annotations

from collections.abc import Mapping

from leyline import Decision, EpochMetrics, Event, LearningRates, RiskLevel, SeedReport
from tamiyo.risk.allowance import ALLOWANCES
from tamiyo.risk.engine import Assessment
from tolaria.boundary.commit import Outcome
from tolaria.boundary.field_reports import field_reports
from tolaria.boundary.report import BoundaryReport
from tolaria.boundary.risk import assess, changes, marked
from tolaria.boundary.stage_timer import StageTimer
from tolaria.live_run import LiveRun
from tolaria.rollback.response import respond_at_boundary


def pass_boundary(
    esper: LiveRun,
    known: Mapping[str, float],
    fresh: Mapping[str, float],
    outside: StageTimer,
    *,
    ends_epoch: bool,
) -> BoundaryReport:
    """Measure what is due, decide and change the model, and record all of it.

    Args:
        known: the metrics that the decision may rest on, some perhaps of an earlier boundary.
        fresh: those that were measured since the last one.
        outside: times what is no part of the boundary; it holds what the last checkpoint took.
        ends_epoch: False within an epoch.
    """
    inside = StageTimer(esper.clock_s)
    esper.epoch += 1
    was_risk = esper.watch.risk.state_dict()
    try:
        outcome, risk = _measure_and_commit(esper, known, fresh, inside, outside)
    except BaseException:
        esper.epoch -= 1  # it did not happen
        esper.watch.risk.load_state_dict(was_risk)
        raise
    outcome = marked(outcome, risk)
    esper.watch.passed_boundary(risk)
    reports = list(outcome.reports)
    if esper.config.grows:
        reports += esper.growth.follow_up(reports, outside, esper.epoch, ends_epoch=ends_epoch)
    for fault in esper.executor.lifecycle.take_callback_faults():
        esper.fault("transition callback", fault, "the transition stands")
    with outside.stage("journal"):
        for event in [*changes(esper, risk), *_events(esper, outcome.decision, reports, fresh)]:
            esper.session.record(event)
        _keep(esper, durably=outcome.is_replayable)
    stretch_steps = esper.config.boundary_every_steps or esper.steps_since_boundary
    esper.executor.ramp_steps = max(1, stretch_steps * esper.config.ramp_epochs)
    esper.steps_since_boundary = 0
    with outside.stage("snapshot"):
        # The decision is part of the state: a graft goes back to alpha 0, where it was attached.
        esper.recovery.take(esper.epoch, esper.step)
    return BoundaryReport.of(outcome.decision, reports, inside.took_ms, outside_ms=outside.took_ms)


def _measure_and_commit(
    esper: LiveRun,
    known: Mapping[str, float],
    fresh: Mapping[str, float],
    inside: StageTimer,
    outside: StageTimer,
) -> tuple[Outcome, Assessment]:
    """All that leads to the commit point, and that; if it raises, there was no boundary."""
    with outside.stage("watch"):
        for seed, fault in esper.executor.take_faults().items():
            esper.fault(f"seed {seed}", fault, "it is out; the host goes on without it")
        _settle_learning_rates(esper)
        has_gone_back = respond_at_boundary(esper, fresh)
        risk = assess(esper)
    with outside.stage("schedulers"):
        esper.rates.notice_schedulers()
    ready = esper.boundary.ready() and not has_gone_back and ALLOWANCES[risk.level].moves_on
    if esper.config.grows:
        esper.growth.measure(
            esper.session,
            outside,
            epoch=esper.epoch,
            num_steps=esper.steps_since_boundary,
            ready=ready,
        )
    if has_gone_back:
        return _gone_back(esper), risk
    return _commit(esper, known, inside, outside, risk.level), risk


def _settle_learning_rates(esper: LiveRun) -> None:
    """Tell of rates that somebody else wrote; in three stretches in a row, growth holds."""
    writes = esper.rates.take_foreign_writes()
    for write in writes:
        esper.fault(f"learning rate of {write.seed}", str(write), "it is put back")
    breaker = esper.breakers.learning_rates
    if breaker.admits():
        breaker.settle(str(writes[0]) if writes else None)


def _gone_back(esper: LiveRun) -> Outcome:
    """The metrics are those of a state that was undone: nothing may rest on them."""
    cause = "growth holds: the run has just gone back, and what was measured is undone"
    policy = esper.controller.policy_name
    return Outcome(Decision(epoch=esper.epoch, policy=policy, cause=cause), [], has_gone_back=True)


def _commit(
    esper: LiveRun,
    numbers: Mapping[str, float],
    inside: StageTimer,
    outside: StageTimer,
    risk_level: RiskLevel,
) -> Outcome:
    with outside.stage("count"):
        grown_parameters = esper.executor.grown_parameters()
        host_parameters = esper.num_parameters() - grown_parameters
    outcome = esper.boundary.commit(
        numbers,
        inside,
        outside,
        epoch=esper.epoch,
        step=esper.step,
        num_epochs=esper.num_epochs,
        host_parameters=host_parameters,
        grown_parameters=grown_parameters,
        risk_level=risk_level,
    )
    if outcome.fault is not None:
        esper.fault("boundary", outcome.fault, "the boundary did not count; growth holds")
    return outcome


def _keep(esper: LiveRun, *, durably: bool) -> None:
    """Say when the journal has begun to lose events; have it on the disk before the next step.

    Args:
        durably: whether time or chance decided this outcome, so that a resume must know of it.
    """
    recorder = esper.session.recorder
    if durably:
        recorder.sync()
    problem = recorder.take_problem()  # also of what came after the last boundary
    if problem and (durably or not esper.journal_is_losing):
        action = "training goes on; if it is resumed, it may not end bit-identical"
        esper.fault("journal", problem, action)
    esper.journal_is_losing = bool(problem)


def _events(
    esper: LiveRun,
    decision: Decision,
    reports: list[SeedReport],
    numbers: Mapping[str, float],
) -> list[Event]:
    table = esper.executor.table
    view = esper.session.recorder.view
    judged = field_reports(table, view, reports, step=esper.step, metrics=numbers)
    events: list[Event] = [decision, *reports, *judged]
    events.append(epoch_metrics(esper, numbers))
    num_faults = esper.take_num_faults()
    if esper.config.grows:
        host, seeds = esper.rates.learning_rates()
        rates = LearningRates(epoch=esper.epoch, step=esper.step, host=host, seeds=seeds)
        events.append(rates)
        events.append(esper.executor.lifecycle.take_metrics(esper.epoch, num_faults))
    return events


def epoch_metrics(esper: LiveRun, numbers: Mapping[str, float]) -> EpochMetrics:
    """The metrics of the stretch that ends, and the shape of the network after it."""
    return EpochMetrics(
        epoch=esper.epoch,
        num_epochs=esper.num_epochs,
        step=esper.step,
        metrics=dict(numbers),
        parameters=esper.num_parameters(),
        stages=esper.executor.table.num_by_stage(),
        flops=esper.growth.flops.by_use(),
    )
