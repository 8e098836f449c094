"""A training loop whose every step depends on all that a rollback must bring back."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR

from kasmina import Executor
from leyline import Stage
from tamiyo import Controller
from tests.tolaria.plain_loops import (
    SCHEDULE,
    SEED,
    TRAIN,
    Batch,
    attach,
    evaluate,
    loss_fn,
    make_host,
    streams,
)
from tolaria import Orchestrator
from tolaria.config import EsperConfig
from tolaria.growth.policies import build_policy
from tolaria.rates.controller import UnifiedLRController
from tolaria.rollback.state import Parts

NUM_STEPS = 100
NewLoop = Callable[..., "Loop"]
NO_TRIALS: dict[str, Any] = {"loss_fn": None, "data": None, "example": TRAIN[0][0]}
GROWN = {**NO_TRIALS, "schedule": SCHEDULE}
"""GRAFTING from the end of epoch 2, STABILIZATION from that of 3, EVALUATING from that of 4."""


def make_optimizer(kind: str, model: nn.Module) -> Optimizer:
    if kind == "sgd":
        return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(model.parameters(), lr=0.01)


def parts_of(
    model: nn.Module, optimizers: Sequence[Optimizer], schedulers: Sequence[Any] = ()
) -> Parts:
    rates = UnifiedLRController(model, optimizers, schedulers)
    controller = Controller(build_policy(EsperConfig(policy="hold")), time.monotonic)
    return Parts(model, Executor(model, rng_seed=0), rates, controller)


class Loop:
    """Batch norm, dropout, noise from Python and numpy, a cosine schedule, and perhaps a scaler."""

    def __init__(self, kind: str = "adamw", run_dir: Path | None = None, **settings: Any):
        self.scaler = torch.amp.GradScaler("cpu", growth_interval=7) if "scaler" in kind else None
        random.seed(0)
        np.random.seed(0)
        self.model = make_host()
        self.optimizer = make_optimizer(kind, self.model)
        self.schedule = CosineAnnealingLR(self.optimizer, T_max=150)
        self.num_done = 0
        self.esper: Orchestrator | None = None
        if run_dir is None:
            self.parts = parts_of(self.model, [self.optimizer], [self.schedule])
            self.parts.scaler = self.scaler
        else:
            settings = {"schedulers": [self.schedule], "scaler": self.scaler, **settings}
            self.esper = attach(self.model, self.optimizer, run_dir, **settings)
            self.parts = self.esper.recovery.parts

    def step(
        self, batch: Batch | None = None, poison: float = 0.0, gradient: float | None = None
    ) -> float:
        """One step on the next batch; a poison is added to the loss, or put into a gradient."""
        batch = TRAIN[self.num_done % len(TRAIN)] if batch is None else batch
        self.num_done += 1
        self.model.train()
        scale, shift = random.uniform(1.0, 1.1), np.random.uniform(0.0, 0.1)  # noqa: S311
        images = batch[0] * scale + float(shift)
        self.optimizer.zero_grad()
        loss = loss_fn(self.model, (images, batch[1])) + poison
        if self.scaler is None:
            loss.backward()
            if gradient is not None:
                next(p.grad for p in self.model.parameters() if p.grad is not None)[0] = gradient
            self.optimizer.step()
        else:
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.schedule.step()
        if self.esper is not None:
            self.esper.after_step(loss.detach(), batch)
        return float(loss.detach())

    def steps(self, num_steps: int = NUM_STEPS) -> list[float]:
        return [self.step() for _ in range(num_steps)]

    def epoch(self, num_steps: int = len(TRAIN)) -> list[float]:
        losses = self.steps(num_steps)
        assert self.esper is not None
        self.esper.epoch_boundary(evaluate(self.model))
        return losses

    def fingerprint(self) -> dict[str, Any]:
        """Everything that the coming steps depend on, comparable with ==."""
        table = self.parts.executor.table
        state = self.optimizer.state
        moments = [
            {k: _plain(v) for k, v in state.get(p, {}).items()}
            for group in self.optimizer.param_groups
            for p in group["params"]
        ]
        return {
            "weights": {name: _plain(v) for name, v in self.model.state_dict().items()},
            "moments": moments,
            "rates": [group["lr"] for group in self.optimizer.param_groups],
            "schedule": {k: repr(v) for k, v in self.schedule.state_dict().items()},
            "scale": None if self.scaler is None else self.scaler.state_dict(),
            "streams": streams(),
            "seeds": {name: table.record(name) for name in table.names},
            "executor": repr(self.parts.executor.state_dict()),
            "controller": repr(self.parts.controller.state_dict()),
        }


@pytest.fixture
def new_loop(tmp_path: Path) -> Iterator[NewLoop]:
    """Makes loops, with the orchestrator of a run of their own if there are settings for it."""
    with ExitStack() as runs:

        def make(kind: str = "adamw", **settings: Any) -> Loop:
            loop = Loop(kind, tmp_path / "run" if settings else None, **settings)
            if loop.esper is not None:
                runs.callback(loop.esper.close)
            return loop

        yield make


def _plain(value: Any) -> Any:
    return value.detach().numpy().tobytes() if isinstance(value, torch.Tensor) else value


def stage(loop: Loop) -> Stage:
    return loop.parts.executor.table.stage(SEED)


def grown(new_loop: NewLoop, num_epochs: int, kind: str = "adamw", **settings: Any) -> Loop:
    loop = new_loop(kind, **{**GROWN, **settings})
    for _ in range(num_epochs):
        loop.epoch()
    return loop
