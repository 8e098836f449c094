"""The orchestrator: what a training loop calls after each step and at each epoch's end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import pybreaker
from torch import Tensor, nn
from torch.optim import Optimizer

from kasmina import Executor, FunctionTask, LossFunction, Task
from leyline import (
    ConfigError,
    Decision,
    EpochMetrics,
    EsperError,
    Fault,
    RunEnded,
    RunStarted,
    SeedReport,
    StepMetrics,
)
from oona import BusStatistics
from tamiyo import Controller
from tolaria import resume
from tolaria.batch_source import BatchSource, GivenBatches
from tolaria.boundary import BoundaryReport, StageTimer
from tolaria.config import EsperConfig, load_config
from tolaria.field_reports import field_reports
from tolaria.gather import Gatherer
from tolaria.growth import Growth
from tolaria.learning_rate import UnifiedLRController
from tolaria.policies import build_policy
from tolaria.recovery import LossWatch, Recovery, is_bad
from tolaria.session import Session

_LOG = logging.getLogger("esper")
_FAULTS_TO_OPEN = 3
_RETRY_AFTER_S = 600


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
        self.epoch = 0
        """Epochs whose boundary has passed."""
        self.step = 0
        """Training steps seen."""
        self.committed_epoch = -1
        """The epoch of the last checkpoint that was tried."""
        self.num_epochs = num_epochs
        self.training_flops = 0
        """FLOPs of the live run so far, counted per step on a copy; 0 while growth is off."""
        self.host_step_flops = 0
        """FLOPs of one step before anything had grown; 0 until it is counted."""
        self.executor = Executor(model, rng_seed=config.rng_seed)
        self.rates = UnifiedLRController(
            model, optimizers, schedulers, seed_factor=config.seed_learning_rate_factor
        )
        self.growth = Growth(model, self.executor, self.rates, task, source, config, example)
        self.controller = Controller(build_policy(config), clock_s)
        self.recovery = Recovery(model, optimizers, self.executor, config.embargo_epochs)
        self.gatherer = Gatherer(
            self.executor, run_id=session.run.run_id, param_budget=config.param_budget
        )
        self._holds = config.policy == "hold"
        self._surveyed = False
        self._steps_this_epoch = 0
        self._losses = LossWatch()
        self._clock_s = clock_s
        self._carried_ms: dict[str, float] = {}
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=_FAULTS_TO_OPEN, reset_timeout=_RETRY_AFTER_S, throw_new_error_on_trip=False
        )

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
            example: the positional arguments of one forward call, as a tuple.
            loss_fn: `loss_fn(model, batch) -> loss`, for trials.
            data: training and held-out batches, as a pair or a mapping with the keys `train` and
                `held_out`. Without loss_fn and data a planted seed skips its trial.

        Raises:
            ConfigError, RunError, BusError: a setting, the run directory or the URL is not right.
        """
        resolved = load_config(config, overrides)
        if isinstance(example, Tensor):
            example = (example,)
        orchestrator = cls(
            model,
            [optimizer],
            resolved,
            session=Session.open(resolved),
            task=FunctionTask(model, loss_fn),
            source=GivenBatches(data, resolved.max_kept_batches),
            num_epochs=resolved.num_epochs or 0,
            example=tuple(example) if example is not None else None,
        )
        if loss_fn is None or data is None:
            missing = "loss_fn" if loss_fn is None else "data"
            orchestrator.executor.trials_waived = f"no trial: no {missing} was given to attach()"
        orchestrator.start(resumed=False)
        return orchestrator

    def start(self, *, resumed: bool) -> None:
        """Announce the run and remember the state it starts from."""
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

    def after_step(self, loss: Tensor | float, batch: Any = None) -> None:
        """Tell that one training step is done; call it after `optimizer.step()`.

        Args:
            loss: the step's loss.
            batch: the step's batch, if at hand: it is looked at only when the loss is not finite.

        Raises:
            NonFiniteError: the loss is not finite and no seed can be blamed for it.
        """
        self.step += 1
        self._steps_this_epoch += 1
        value = self._losses.observe(loss)
        if is_bad(value):
            self._recover(float("nan") if value is None else value, batch)
        elif value is not None:
            self.session.record(StepMetrics(step=self.step, loss=value))
        self.executor.after_step()
        self.rates.follow()

    def epoch_boundary(self, metrics: Mapping[str, Any]) -> BoundaryReport:
        """End an epoch: measure what is due, decide, change the model, report.

        Args:
            metrics: the epoch's metrics by name; what is not a number is left out.

        Raises:
            ConfigError: a setting names a metric, site or blueprint that there is not.
        """
        self.epoch += 1
        numbers = _numbers(metrics)
        self._check_monitor(numbers)
        outside = StageTimer(self._clock_s, dict(self._carried_ms))
        self._carried_ms = {}
        if not self._holds:
            self._measure(outside)
        with outside.stage("snapshot"):
            self.recovery.take(self.epoch, self.step)
        inside = StageTimer(self._clock_s)
        decision, reports = self._commit(numbers, inside)
        if not self._holds:
            with outside.stage("germination"):
                reports += self.growth.prove(self.epoch)
        report = BoundaryReport(
            epoch=self.epoch,
            decision=decision,
            reports=tuple(reports),
            gather_ms=inside.took_ms.get("gather", 0.0),
            decide_ms=inside.took_ms.get("decide", 0.0),
            apply_ms=inside.took_ms.get("apply", 0.0),
            outside_ms=outside.took_ms,
        )
        self._publish(report, numbers)
        self.executor.ramp_steps = max(1, self._steps_this_epoch * self.config.ramp_epochs)
        self._steps_this_epoch = 0
        return report

    def report(self) -> dict[str, Any]:
        """The run so far, as plain values: `boundaries`, `seeds` and `decisions`."""
        return self.session.recorder.view.to_dict()

    def checkpoint(self, state: Mapping[str, Any] | None = None) -> None:
        """Commit a checkpoint of the model, its optimizers and the growth state.

        Args:
            state: what to write; a hand-written loop leaves it out.
        """
        timer = StageTimer(self._clock_s)
        self.committed_epoch = self.epoch
        with timer.stage("checkpoint"):
            problem = self.session.commit(self.step, state or resume.loop_state(self))
        self._carried_ms = timer.took_ms
        if problem is not None:
            self._fault("checkpoint", problem, "training goes on; the last checkpoint stays")

    def close(
        self, status: str = "finished", metrics: Mapping[str, float] | None = None
    ) -> BusStatistics:
        """End the run: write the report, flush the bus, let go of the run directory."""
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
        self.close("finished" if kind is None else "failed")

    # --- parts of a boundary -----------------------------------------------------------------

    def _measure(self, timer: StageTimer) -> None:
        if not self._surveyed:
            with timer.stage("survey"):
                if not self.executor.grounds.sites:
                    self.growth.find_sites()
                self.gatherer.survey_done()
            self._surveyed = True
        with timer.stage("race"):
            waived = self.growth.race()
            if waived is not None:
                self._fault("race", waived, "candidates are given up; planted seeds skip trials")
        with timer.stage("counterfactual"):
            self.growth.measure_counterfactuals()
        with timer.stage("flops"):
            step_flops = self.growth.step_flops()
            self.training_flops += self._steps_this_epoch * step_flops
            self.host_step_flops = self.host_step_flops or step_flops

    def _commit(
        self, numbers: Mapping[str, float], timer: StageTimer
    ) -> tuple[Decision, list[SeedReport]]:
        """Gather, decide, apply. A stage that fails makes the boundary not count."""
        before = self.executor.table.state_dict()
        try:
            with self._breaker.calling():
                with timer.stage("gather"):
                    self.executor.table.end_epoch()
                    schema = self.gatherer.schema(tuple(numbers))
                    packet = self.gatherer.packet(
                        numbers,
                        epoch=self.epoch,
                        step=self.step,
                        num_epochs=self.num_epochs,
                        host_parameters=self.host_parameters(),
                    )
                # Recorded before anything changes: these are the decision's own inputs.
                self.session.record(schema)
                self.session.record(packet)
                with timer.stage("decide"):
                    decision = self.controller.decide(packet, schema)
                del packet
                with timer.stage("apply"):
                    reports = self.executor.withdraw_faulted(self.epoch, self.config.embargo_epochs)
                    reports += self.executor.apply(decision, self.epoch)
                    self.rates.reconcile(self.executor.live_seeds(), self.executor.take_moments)
                return decision, reports
        except EsperError:
            raise
        except Exception as error:  # the callback edge: a bug of ours must not end a run
            self.executor.table.load_state_dict(before)
            self.executor.drop_orphans()
            self.rates.reconcile(self.executor.live_seeds(), self.executor.take_moments)
            what = f"{type(error).__name__}: {error}"
            _LOG.exception("the boundary of epoch %d did not count", self.epoch)
            self._fault("boundary", what, "the boundary did not count; growth holds")
            cause = f"the boundary did not count: {what}"
            return Decision(epoch=self.epoch, policy=self.controller.policy_name, cause=cause), []

    def _publish(self, report: BoundaryReport, numbers: Mapping[str, float]) -> None:
        record = self.session.record
        record(report.decision)
        for seed_report in report.reports:
            record(seed_report)
        for field_report in field_reports(self.executor.table, report.reports):
            record(field_report)
        record(
            EpochMetrics(
                epoch=self.epoch,
                num_epochs=self.num_epochs,
                step=self.step,
                metrics=dict(numbers),
                parameters=self.host_parameters() + self.executor.grown_parameters(),
                stages=self.executor.table.num_by_stage(),
            )
        )
        record(report.timing())

    def _recover(self, loss: float, batch: Any) -> None:
        lost = self.step - self.recovery.snapshot.step
        reports = self.recovery.recover(loss, batch, epoch=self.epoch + 1, step=self.step)
        self.rates.reconcile(self.executor.live_seeds(), self.executor.take_moments)
        named = ", ".join(report.seed for report in reports) or "no seed to blame"
        self._fault("loss", f"loss {loss:g}", f"restored; {lost} steps lost; taken out: {named}")
        for report in reports:
            self.session.record(report)

    def _fault(self, where: str, what: str, action: str) -> None:
        self.session.record(
            Fault(epoch=self.epoch, step=self.step, where=where, what=what, action=action)
        )

    def _check_monitor(self, numbers: Mapping[str, float]) -> None:
        monitor = self.config.monitor
        if monitor in numbers or not numbers:
            return
        sentence = (
            f"monitor is {monitor!r}, which was not logged; logged are {', '.join(numbers)}; "
            "set monitor to one of them"
        )
        if monitor != EsperConfig().monitor:
            raise ConfigError(sentence)
        if self.epoch == 1:
            _LOG.info(sentence)


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that are numbers, as floats."""
    found = {}
    for name, value in metrics.items():
        if isinstance(value, Tensor) and value.numel() == 1:
            found[str(name)] = float(value.detach())
        elif isinstance(value, int | float):
            found[str(name)] = float(value)
    return found
