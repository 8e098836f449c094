"""The orchestrator: what a training loop calls after each step and at each epoch's end."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from torch import Tensor, nn
from torch.optim import Optimizer

from kasmina import Executor, FunctionTask, LossFunction, Task
from kasmina.lifecycle.manager import CallbackHandle, TransitionCallback
from kasmina.slots.slot import attached_seeds
from leyline import (
    Decision,
    EpochMetrics,
    Event,
    Fault,
    NonFiniteError,
    RunEnded,
    RunError,
    RunStarted,
    SeedReport,
    StepMetrics,
)
from oona import BusStatistics
from tamiyo import Controller
from tolaria import plain_loop, resume, rollout
from tolaria.batch_source import BatchSource, GivenBatches
from tolaria.boundary import Boundary, BoundaryReport, Outcome, StageTimer
from tolaria.config import EsperConfig
from tolaria.field_reports import field_reports
from tolaria.gather import Gatherer, check_monitor, numbers_of
from tolaria.growth import Growth
from tolaria.learning_rate import UnifiedLRController, refuse_unfit
from tolaria.policies import build_policy
from tolaria.recovery import LossWatch, Recovery
from tolaria.session import Session
from tolaria.turnstile import Turnstile

_LOG = logging.getLogger("esper")


class Orchestrator:
    """Grows one model during one run. Built by `attach`, or by EsperCallback under Lightning."""

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        config: EsperConfig,
        *,
        session: Session,
        task: Task,
        source: BatchSource,
        schedulers: Sequence[Any] = (),
        num_epochs: int = 0,
        example: tuple[Any, ...] | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ):
        self.model = model
        self.config = config
        self.session = session
        if config.grows:
            refuse_unfit(optimizers)
        self.epoch = 0
        """Epochs whose boundary has passed."""
        self.step = 0
        """Training steps seen."""
        self.committed_epoch = -1
        """The epoch of the last checkpoint that was tried."""
        self.num_epochs = num_epochs
        self.executor = Executor(model, rng_seed=config.rng_seed, records=session.seed_records)
        self.rates = UnifiedLRController(
            model, optimizers, schedulers, seed_factor=config.seed_learning_rate_factor
        )
        self.controller = Controller(build_policy(config), clock_s)
        self.recovery = Recovery(model, optimizers, self.executor, config.embargo_epochs)
        self.gatherer = Gatherer(
            self.executor, run_id=session.run.run_id, param_budget=config.param_budget
        )
        parts = (model, self.executor, self.rates, self.gatherer)
        self.growth = Growth(*parts, task, source, config, example, self._fault)
        self.boundary = Boundary(*parts, self.controller, session.record, config.embargo_epochs)
        self._owns_checkpoints = False
        self._closed = False
        self._turnstile = Turnstile(self.executor.table)
        self._num_faults = 0
        self._steps_this_epoch = 0
        self._losses = LossWatch()
        self._clock_s = clock_s
        self._carried_ms: dict[str, float] = {}

    @classmethod
    def attach(
        cls,
        model: nn.Module,
        optimizer: Optimizer,
        config: Any = None,
        *,
        example: Any = None,
        loss_fn: LossFunction | None = None,
        data: Any = None,
        **overrides: Any,
    ) -> Self:
        """Attach to a hand-written training loop.

        Args:
            model: the host; any module.
            optimizer: the one that trains it.
            config: a path, a mapping or an EsperConfig; `overrides` are single fields of it.
                `sites` may also be a function from the list of sites found to those to use.
            example: the positional arguments of one forward call, as a tuple (or one tensor).
            loss_fn: `loss_fn(model, batch) -> loss`, for trials.
            data: training and held-out batches, as a pair or a mapping with the keys `train` and
                `held_out`. Without loss_fn and data a planted seed skips its trial.

        A checkpoint is committed after every boundary.

        Raises:
            ConfigError, RunError, BusError: a setting or an argument, the run directory or the
                URL is not right.
        """
        resolved, site_filter = rollout.resolve(config, overrides)
        plain_loop.check(model, optimizer, grows=resolved.grows)
        source = GivenBatches(data, resolved.max_kept_batches, resolved.max_kept_size_bytes)
        arguments = plain_loop.arguments_of(example)
        session = Session.open(resolved)
        try:
            orchestrator = cls(
                model,
                [optimizer],
                resolved,
                session=session,
                task=FunctionTask(model, loss_fn),
                source=source,
                num_epochs=resolved.num_epochs or 0,
                example=arguments,
            )
            orchestrator.executor.trials_waived = plain_loop.what_trials_lack(loss_fn, data)
            orchestrator.growth.search.site_filter = site_filter
            orchestrator._owns_checkpoints = resolved.checkpoint
            orchestrator.start(resumed=False)
        except BaseException:
            session.abandon()
            raise
        return orchestrator

    def start(self, *, resumed: bool) -> None:
        """Announce the run and remember the state it starts from.

        Raises:
            ConfigError: the model carries seeds that this run knows nothing of.
        """
        self.executor.table.adopt()
        strange = [s for s in attached_seeds(self.model) if s not in self.executor.table]
        if self.config.grows:
            plain_loop.refuse_seeds(strange, type(self.model).__name__)
        if (flaw := self.config.schedule_flaw(self.num_epochs)) is not None:
            _LOG.warning("%s", flaw)
        # An optimizer may still have the groups of seeds that were taken off since.
        self.rates.reconcile(self.executor.live_seeds(), self.executor.take_moments)
        self.session.record(
            RunStarted(
                run_id=self.session.run.run_id,
                epoch=self.epoch,
                num_epochs=self.num_epochs,
                host_parameters=self.host_parameters(),
                model=type(self.model).__name__,
                resumed=resumed,
            )
        )
        self.recovery.take(self.epoch, self.step)

    def host_parameters(self) -> int:
        """Parameters of the model without what growth has added."""
        total = sum(parameter.numel() for parameter in self.model.parameters())
        return total - self.executor.grown_parameters()

    # --- called by the loop ------------------------------------------------------------------

    def after_step(self, loss: Tensor | float | None, batch: Any = None) -> None:
        """Tell that one training step is done; call it after `optimizer.step()`.

        Args:
            loss: the step's loss; None for a step that had none.
            batch: the step's batch, if at hand: it is looked at only when the loss is not finite.

        Raises:
            NonFiniteError: the loss is not finite and no seed can be blamed for it.
            ConfigError: the loss is not one number.
            OwnerError: another thread owns the run; nothing was changed.
            RunError: the run is closed, or the call comes from a callback; nothing was changed.
        """
        self._refuse_closed()
        with self._turnstile:
            value = self._losses.observe(loss)
            self.step += 1
            self._steps_this_epoch += 1
            if value is not None and math.isfinite(value):
                self.session.record(StepMetrics(step=self.step, loss=value))
            elif value is not None:
                self._recover(value, batch)
            for seed, fault in self.executor.after_step(value).items():
                self._fault(f"graft of {seed}", fault, "its alpha stays until it is taken out")
            self.rates.follow()

    def epoch_boundary(self, metrics: Mapping[str, Any], *, whole: bool = True) -> BoundaryReport:
        """End an epoch: measure what is due, decide, change the model, report.

        Args:
            metrics: the epoch's metrics by name; what is not a number is left out.
            whole: False while the first validation, and so its metrics, is still to come.

        Raises:
            ConfigError: a setting names a metric, site or blueprint that there is not.
            OwnerError: another thread owns the run; nothing was changed.
            RunError: the run is closed, or the call comes from a callback; nothing was changed.
        """
        self._refuse_closed()
        with self._turnstile:
            return self._pass_boundary(metrics, whole)

    def on_transition(self, callback: TransitionCallback) -> CallbackHandle:
        """Have a function told of every transition of a seed, by its SeedReport.

        Returns:
            A handle whose `remove()` ends this. What the function raises is reported as a fault.
        """
        return self.executor.lifecycle.on_transition(callback)

    def report(self) -> dict[str, Any]:
        """The run so far, as plain values: `boundaries`, `seeds` and `decisions`."""
        return self.session.recorder.view.to_dict()

    def checkpoint(self, state: Mapping[str, Any] | None = None) -> None:
        """Commit a checkpoint of the model, its optimizers and the growth state.

        Args:
            state: what to write; a hand-written loop leaves it out.
        """
        timer = StageTimer(self._clock_s)
        with timer.stage("checkpoint"):
            self._save(state)
        self._carried_ms = timer.took_ms

    def close(
        self, status: str = "finished", metrics: Mapping[str, float] | None = None
    ) -> BusStatistics:
        """End the run: write the report, flush the bus, let go of the run directory.

        Further calls only return the bus's last statistics. The model keeps its seeds.
        """
        if not self._closed:
            self._closed = True
            self.rates.release()
        ended = RunEnded(
            run_id=self.session.run.run_id,
            epoch=self.epoch,
            status=status,
            parameters=self.host_parameters() + self.executor.grown_parameters(),
            metrics=dict(metrics or {}),
        )
        return self.session.close(ended)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        stopped = kind is not None and issubclass(kind, KeyboardInterrupt)
        self.close("interrupted" if stopped else "finished" if kind is None else "failed")

    # --- parts of a boundary -----------------------------------------------------------------

    def _pass_boundary(self, metrics: Mapping[str, Any], whole: bool) -> BoundaryReport:
        numbers = numbers_of(metrics)
        if whole:
            check_monitor(self.config.monitor, numbers, self.session.recorder.view.metrics)
        self.epoch += 1
        outside = StageTimer(self._clock_s, self._carried_ms)
        self._carried_ms = {}
        for seed, fault in self.executor.take_faults().items():
            self._fault(f"seed {seed}", fault, "it is out; the host goes on without it")
        ready = self.boundary.ready()
        if self.config.grows:
            self.growth.measure(
                self.session,
                outside,
                epoch=self.epoch,
                num_steps=self._steps_this_epoch,
                ready=ready,
            )
        with outside.stage("snapshot"):
            self.recovery.take(self.epoch, self.step)
        inside = StageTimer(self._clock_s)
        outcome = self._commit(numbers, inside) if ready else self.boundary.held(self.epoch)
        reports = list(outcome.reports)
        if self.config.grows:
            reports += self.growth.follow_up(reports, outside, self.epoch)
        for fault in self.executor.lifecycle.take_callback_faults():
            self._fault("transition callback", fault, "the transition stands")
        for event in self._events(outcome.decision, reports, numbers):
            self.session.record(event)
        self.executor.ramp_steps = max(1, self._steps_this_epoch * self.config.ramp_epochs)
        self._steps_this_epoch = 0
        if self._owns_checkpoints:
            with outside.stage("checkpoint"):
                self._save(None)
        report = BoundaryReport.of(
            outcome.decision, reports, inside.took_ms, outside_ms=outside.took_ms
        )
        self.session.record(report.timing())
        return report

    def _commit(self, numbers: Mapping[str, float], timer: StageTimer) -> Outcome:
        outcome = self.boundary.commit(
            numbers,
            timer,
            epoch=self.epoch,
            step=self.step,
            num_epochs=self.num_epochs,
            host_parameters=self.host_parameters(),
        )
        if outcome.fault is not None:
            self._fault("boundary", outcome.fault, "the boundary did not count; growth holds")
        return outcome

    def _save(self, state: Mapping[str, Any] | None) -> None:
        self.committed_epoch = self.epoch
        problem = self.session.commit(self.step, state or resume.loop_state(self))
        if problem is not None:
            self._fault("checkpoint", problem, "training goes on; the last checkpoint stays")

    def _events(
        self, decision: Decision, reports: list[SeedReport], numbers: Mapping[str, float]
    ) -> list[Event]:
        events: list[Event] = [decision, *reports, *field_reports(self.executor.table, reports)]
        summed_up = EpochMetrics(
            epoch=self.epoch,
            num_epochs=self.num_epochs,
            step=self.step,
            metrics=dict(numbers),
            parameters=self.host_parameters() + self.executor.grown_parameters(),
            stages=self.executor.table.num_by_stage(),
        )
        events.append(summed_up)
        if self.config.grows:
            events.append(self.executor.lifecycle.take_metrics(self.epoch, self._num_faults))
        self._num_faults = 0
        return events

    def _recover(self, loss: float, batch: Any) -> None:
        lost = self.step - self.recovery.snapshot.step
        try:
            reports = self.recovery.recover(loss, batch, epoch=self.epoch + 1, step=self.step)
        except NonFiniteError as error:
            self._fault("loss", str(error), "the run stops")
            raise
        self.rates.find_schedulers()
        self.rates.reconcile(self.executor.live_seeds(), self.executor.take_moments)
        named = ", ".join(report.seed for report in reports) or "no seed to blame"
        self._fault("loss", f"loss {loss:g}", f"restored; {lost} steps lost; taken out: {named}")
        for report in reports:
            self.session.record(report)

    def _fault(self, where: str, what: str, action: str) -> None:
        self._num_faults += 1
        self.session.record(
            Fault(epoch=self.epoch, step=self.step, where=where, what=what, action=action)
        )

    def _refuse_closed(self) -> None:
        if self._closed:
            raise RunError(
                f"the run in {self.session.run.path} is closed; attach the model to a new one"
            )
