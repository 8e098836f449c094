"""Esper beside a training loop, through its public interface, and what is measured of it."""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bench.growth.results import Graft, Growing
from bench.growth.rises import losses_of_change
from bench.growth.task import Score, Task
from bench.growth.training import Course, Start
from kasmina.slots.slot import every_seed
from leyline import SeedReport, Stage
from tolaria import BoundaryReport, Orchestrator
from tolaria.data.loader import EvalLoader, TrainLoader

BeforeBoundary = Callable[[Orchestrator], None]
"""Called after every span, before Esper decides."""


def growing(
    task: Task,
    course: Course,
    settings: dict[str, Any],
    *,
    before_boundary: BeforeBoundary | None = None,
) -> Start:
    """What attaches Esper to a loop, with these of its settings beside the benchmark's own."""

    def start(model: nn.Module, optimizer: Optimizer, scheduler: LambdaLR) -> _Watched:
        """Attach to this network."""
        return _Watched(task, course, settings, (model, optimizer, scheduler), before_boundary)

    return start


class _Watched:
    """Esper in a run; a boundary ends every span."""

    def __init__(
        self,
        task: Task,
        course: Course,
        settings: dict[str, Any],
        parts: tuple[nn.Module, Optimizer, LambdaLR],
        before_boundary: BeforeBoundary | None,
    ) -> None:
        self._task = task
        self._before_boundary = before_boundary
        self.model, self._optimizer, scheduler = parts
        self._directory = tempfile.TemporaryDirectory(prefix="esper-growth-")
        logging.getLogger("esper").setLevel(logging.ERROR)
        splits = task.splits
        self._esper = Orchestrator.attach(
            self.model,
            self._optimizer,
            schedulers=[scheduler],
            example=(task.batch()[0],),
            loss_fn=task.loss,
            data=(
                TrainLoader(splits.train, task.batch_size, course.rng_seed),
                EvalLoader(splits.val, task.batch_size),
            ),
            num_epochs=course.num_spans,
            rng_seed=course.rng_seed,
            run_dir=self._directory.name + "/run",
            telemetry="off",
            **settings,
        )
        self._esper.on_transition(self._transition)
        self._reports: list[SeedReport] = []
        self._grafts: list[Graft] = []
        self._causes: list[str] = []
        self._boundary_ms: dict[str, float] = {}
        self._last_loss = float("inf")
        self._rise = self._rise_of_cull = self._rise_in_ramp = float("-inf")
        self._num_rollbacks = self._num_untracked = 0
        self._esper_s = self._race_s = 0.0
        self._unmeasured = (0.0, 0.0)
        self._started_s = time.perf_counter()

    def _transition(self, report: SeedReport) -> None:
        self._reports.append(report)

    @property
    def flops(self) -> tuple[int, int]:
        counted = self._esper.growth.flops
        return counted.training, counted.trials + counted.counterfactuals

    @property
    def unmeasured_s(self) -> tuple[float, float]:
        return self._unmeasured

    def after_step(self, loss: Tensor) -> None:
        start_s = time.perf_counter()
        self._esper.after_step(loss)
        self._esper_s += time.perf_counter() - start_s

    def after_span(self, score: Score) -> None:
        """Pass a boundary, and measure what it did to the network."""
        if self._before_boundary is not None:
            self._before_boundary(self._esper)
        table = self._esper.executor.table
        if table.in_stage(Stage.GRAFTING):
            self._rise_in_ramp = max(self._rise_in_ramp, score.loss / self._last_loss - 1)
        self._reports.clear()
        start_s = time.perf_counter()
        report = self._esper.epoch_boundary({"val_loss": score.loss, "val_metric": score.metric})
        self._esper_s += time.perf_counter() - start_s
        self._race_s += sum(report.outside_ms.get(s, 0.0) for s in ("race", "germination")) / 1e3
        self._note(report)
        started = time.process_time(), time.perf_counter()
        self._measure(score)
        ended = time.process_time(), time.perf_counter()
        cpu_s, wall_s = (sum(pair) for pair in zip(self._unmeasured, ended, strict=True))
        self._unmeasured = cpu_s - started[0], wall_s - started[1]

    def _note(self, report: BoundaryReport) -> None:
        """Keep what a boundary did, and what that took."""
        stages = {"gather": report.gather_ms, "decide": report.decide_ms, "apply": report.apply_ms}
        for stage, took_ms in (stages | report.outside_ms).items():
            self._boundary_ms[stage] = self._boundary_ms.get(stage, 0.0) + took_ms
        if report.decision.commands:
            self._causes.append(f"{report.epoch}: {report.decision.cause}")
        for change in self._reports:
            if change.now == Stage.GRAFTING and change.was == Stage.TRAINING:
                self._grafts.append(self._graft(change, report.epoch - 1))
            self._num_rollbacks += change.now == Stage.ROLLED_BACK

    def _graft(self, change: SeedReport, planted: int) -> Graft:
        gain = float(self._esper.executor.table.get(change.seed, "trial_gain"))
        tried = None if math.isnan(gain) else gain
        return Graft(planted, change.site, change.blueprint, change.parameters, tried)

    def _measure(self, score: Score) -> None:
        tracked = {id(p) for group in self._optimizer.param_groups for p in group["params"]}
        trained = [p for p in self.model.parameters() if p.requires_grad]
        untracked = sum(id(p) not in tracked for p in trained)
        self._num_untracked = max(self._num_untracked, untracked)
        self._last_loss = score.loss
        losses = losses_of_change(self._task, self.model, self._reports)
        if losses:
            self._last_loss = losses[0]
            self._rise_of_cull = max(self._rise_of_cull, losses[0] / score.loss - 1)
            self._rise = max(self._rise, max(losses) / losses[0] - 1)

    def close(self) -> Growing:
        """End Esper's run; what it grew, how the network bore it, and what it took."""
        took_s = time.perf_counter() - self._started_s - self._unmeasured[1]
        in_host_s = max(took_s - self._esper_s, 1e-9)
        self._esper.close()
        self._directory.cleanup()
        seeds = [held for held in every_seed(self.model) if held.seed.active]
        return Growing(
            grafts=self._grafts,
            structure=[(held.site, held.seed.blueprint) for held in seeds],
            worst_rise=max(self._rise, -1.0),
            worst_rise_of_cull=max(self._rise_of_cull, -1.0),
            worst_rise_in_ramp=max(self._rise_in_ramp, -1.0),
            num_rollbacks=self._num_rollbacks,
            num_untracked=self._num_untracked,
            boundary_ms={stage: round(took, 1) for stage, took in self._boundary_ms.items()},
            overhead=(self._esper_s - self._race_s) / in_host_s,
            causes=self._causes,
        )
