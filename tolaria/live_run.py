"""A run while it lives: what it is made of, and how far it has come."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from kasmina import Executor, Task
from leyline import BreakerChange, Fault
from tamiyo import Controller
from tolaria.boundary.breakers import Breakers, Change
from tolaria.boundary.commit import Boundary
from tolaria.boundary.gather import Gatherer
from tolaria.boundary.latency_watch import LatencyWatch
from tolaria.boundary.mean_loss import MeanLoss
from tolaria.boundary.report import BoundaryReport
from tolaria.config import EsperConfig
from tolaria.growth.batch_source import BatchSource
from tolaria.growth.growth import Growth
from tolaria.growth.policies import build_policy
from tolaria.rates import RateRule, UnifiedLRController, refuse_unfit
from tolaria.resume.replay import Replay
from tolaria.rollback.full import from_disk
from tolaria.rollback.recovery import Recovery
from tolaria.rollback.state import Parts
from tolaria.rollback.watch import Watch
from tolaria.session import Session
from tolaria.turnstile import Turnstile


class LiveRun:
    """What the steps and boundaries of a run work on; the orchestrator has the loop call them."""

    epoch: int
    """Epochs whose boundary has passed."""
    step: int
    """Training steps seen."""
    committed_epoch: int
    """The epoch of the last checkpoint that was tried."""
    in_plain_loop: bool
    """Whether a hand-written loop calls this, and nobody else passes boundaries or saves."""
    epoch_end_step: int
    """The step that the last epoch ended with."""
    mean_loss: MeanLoss
    """Of the steps since the last boundary."""
    metrics: dict[str, float]
    """The metrics of the last epoch that has ended."""
    last_report: BoundaryReport | None
    """The last boundary's report; None before the first."""
    journal_is_losing: bool
    """Whether the journal lost events at the last boundary."""
    carried_ms: dict[str, float]
    """What the first survey and the last checkpoint took, until a boundary tells of it."""

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
        self.schedulers = list(schedulers)
        self.config = config
        self.session = session
        if config.grows:
            refuse_unfit(optimizers)
        self.epoch = 0
        self.step = 0
        self.committed_epoch = -1
        self.num_epochs = num_epochs
        self.executor = Executor(model, rng_seed=config.rng_seed, records=session.seed_records)
        rule = RateRule(
            config.seed_learning_rate_factor, config.seed_warmup_steps, config.seed_rate_rule
        )
        self.rates = UnifiedLRController(model, optimizers, schedulers, rule=rule)
        self.controller = Controller(build_policy(config), clock_s)
        self.watch = Watch(config)
        self.recovery = Recovery(
            Parts(model, self.executor, self.rates, self.controller),
            lambda: from_disk(self.recovery.parts, session),
            embargo_epochs=config.embargo_epochs,
            guards_steps=config.guard_every_step,
        )
        self.gatherer = Gatherer(
            self.executor, run_id=session.run.run_id, param_budget=config.param_budget
        )
        parts = (model, self.executor, self.rates, self.gatherer)
        self.growth = Growth(*parts, task, source, config, example, self.fault)
        self.breakers = Breakers(lambda: self.epoch, clock_s, self._changed)
        self.boundary = Boundary(
            *parts, self.controller, session.record, config.embargo_epochs, self.breakers
        )
        self.in_plain_loop = False
        self.is_closed = False
        self.turnstile = Turnstile(self.executor.table)
        self._num_faults = 0
        self.steps_since_boundary = 0
        self.epoch_end_step = 0
        self.mean_loss = MeanLoss()
        self.metrics = {}
        self.last_report = None
        self.journal_is_losing = False
        self.latency = LatencyWatch()
        self.clock_s = clock_s
        self.carried_ms = {}

    @property
    def run_dir(self) -> Path:
        """The run's directory, as `esper inspect` takes it."""
        return self.session.run.path

    def host_parameters(self) -> int:
        """Parameters of the model without what growth has added."""
        return self.num_parameters() - self.executor.grown_parameters()

    def num_parameters(self) -> int:
        """Parameters of the model with what growth has added."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def boundary_is_due(self) -> bool:
        """Whether `boundary_every_steps` are full."""
        every = self.config.boundary_every_steps
        return every is not None and self.steps_since_boundary >= every

    def replay(self, replay: Replay) -> None:
        """Decide as the run that is being resumed did where its state alone does not tell."""
        self.controller.hold_at(frozenset(replay.late))
        self.boundary.replay(replay.undone)
        self.watch.replay(replay)

    def fault(self, where: str, what: str, action: str) -> None:
        """Record something that failed and was contained."""
        self._num_faults += 1
        self.session.record(
            Fault(epoch=self.epoch, step=self.step, where=where, what=what, action=action)
        )

    def _changed(self, change: Change) -> None:
        change.log()
        self.session.record(BreakerChange(epoch=self.epoch, step=self.step, **change._asdict()))

    def take_num_faults(self) -> int:
        """How many faults there were since this was last asked."""
        num_faults, self._num_faults = self._num_faults, 0
        return num_faults
