"""One plain training loop for every arm: the same batches, optimizer, schedule and measures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Final, Protocol

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bench.growth.results import Growing, Point, Result
from bench.growth.task import Score, Task, num_parameters
from tolaria.data.loader import Batch, TrainLoader

_WARMUP_STEPS: Final = 50
_CONSTANT_SHARE: Final = 0.6
_FINAL_FACTOR: Final = 0.01


@dataclass(frozen=True)
class Course:
    """How long a network is trained, how fast, and on which random numbers."""

    num_spans: int
    learning_rate: float
    rng_seed: int

    def factor(self, step: int, num_steps: int) -> float:
        """Of the learning rate: up over 50 steps, constant until 60 %, linearly down to 1 %.

        Args:
            step: from 0.
        """
        warm_up = min(1.0, (step + 1) / _WARMUP_STEPS)
        start = _CONSTANT_SHARE * num_steps
        done = max(0.0, (step - start) / max(1.0, num_steps - 1 - start))
        return warm_up * (1.0 - (1.0 - _FINAL_FACTOR) * min(1.0, done))


class Growth(Protocol):
    """What watches a loop and may change the network and the optimizer between two spans."""

    @property
    def model(self) -> nn.Module:
        """The network as it is now, perhaps another object."""
        ...

    def after_step(self, loss: Tensor) -> None: ...

    def after_span(self, score: Score) -> None: ...

    @property
    def flops(self) -> tuple[int, int]:
        """Of training and of search, so far."""
        ...

    @property
    def unmeasured_s(self) -> tuple[float, float]:
        """CPU and wall seconds spent only on measures of this benchmark."""
        ...

    def close(self) -> Growing | None:
        """End it, also in the middle of a run."""
        ...


Start = Callable[[nn.Module, Optimizer, LambdaLR], Growth]


def batches(task: Task, rng_seed: int) -> Iterator[Batch]:
    """Training batches without end, in an order that depends on `rng_seed` alone."""
    loader = TrainLoader(task.splits.train, task.batch_size, rng_seed)
    for epoch in count():
        loader.sampler.set_epoch(epoch)
        yield from loader


@dataclass
class _Clock:
    """CPU and wall seconds since it was made."""

    cpu_s: float = field(default_factory=time.process_time)
    wall_s: float = field(default_factory=time.perf_counter)

    def without(self, other_s: tuple[float, float]) -> tuple[float, float]:
        """Both, less what was spent on other things."""
        cpu_s, wall_s = time.process_time() - self.cpu_s, time.perf_counter() - self.wall_s
        return cpu_s - other_s[0], wall_s - other_s[1]


def train(task: Task, model: nn.Module, course: Course, start: Start | None = None) -> Result:
    """Train a network in place, with what makes it grow if `start` says so."""
    num_steps = course.num_spans * task.steps_per_span
    step_flops = task.step_flops(model)
    optimizer = AdamW(model.parameters(), lr=course.learning_rate)
    scheduler = LambdaLR(optimizer, lambda step: course.factor(step, num_steps))
    source = batches(task, course.rng_seed)
    clock = _Clock()
    growth = start(model, optimizer, scheduler) if start else None
    model = (growth.model if growth else model).train()
    history = []
    try:
        for span in range(1, course.num_spans + 1):
            for _ in range(task.steps_per_span):
                optimizer.zero_grad()
                loss = task.loss(model, next(source))
                loss.backward()
                optimizer.step()
                scheduler.step()
                if growth:
                    growth.after_step(loss.detach())
            score = task.score(model, task.splits.val)
            if growth:
                growth.after_span(score)
                model = growth.model
            flops = growth.flops if growth else (span * task.steps_per_span * step_flops, 0)
            cpu_s, wall_s = clock.without(growth.unmeasured_s if growth else (0.0, 0.0))
            history.append(Point(sum(flops), round(cpu_s, 3), *score))
    finally:
        growing = growth.close() if growth else None
    return _result(task, model, history, flops, (cpu_s, wall_s), growing)


def _result(
    task: Task,
    model: nn.Module,
    history: list[Point],
    spent: tuple[int, int],
    took_s: tuple[float, float],
    growing: Growing | None,
) -> Result:
    val = task.score(model, task.splits.val)
    test = task.score(model, task.splits.test)
    return Result(
        val_loss=val.loss,
        val_metric=val.metric,
        test_loss=test.loss,
        test_metric=test.metric,
        num_parameters=num_parameters(model),
        forward_flops=task.forward_flops(model),
        training_flops=spent[0],
        search_flops=spent[1],
        cpu_s=round(took_s[0], 3),
        wall_s=round(took_s[1], 3),
        history=history,
        growing=growing,
    )


def seeded(make: Callable[[], nn.Module], rng_seed: int) -> nn.Module:
    """Make a network from an RNG seed: the same host for every arm."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(rng_seed)
        return make()
