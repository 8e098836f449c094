"""A task that trains in milliseconds."""

from __future__ import annotations

import torch
from torch import nn

from bench.growth.catalogue import planted
from bench.growth.results import Result
from bench.growth.task import Planting, Task
from tolaria.data.splits import Splits


def host(width: int = 4) -> nn.Sequential:
    """Map (n, 1, 6) to (n, 2)."""
    return nn.Sequential(nn.Conv1d(1, width, 1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * width, 2))


def tiny_task(num_spans: int = 3, learning_rates: tuple[float, ...] = (1e-2, 3e-2)) -> Task:
    """Whether neighbouring values are alike; 40 / 20 / 20 examples in batches of 8."""
    generator = torch.Generator().manual_seed(0)
    signals = torch.randn(80, 1, 6, generator=generator)
    labels = (signals[:, 0, 0] * signals[:, 0, 1] > 0).long()
    task = Task(
        name="tiny",
        splits=Splits.cut(signals, labels, num_train=40, num_val=20),
        host=host,
        widened=host,
        hand_picked=lambda rng_seed: planted(task, [Planting("0", "conv")], rng_seed),
        num_spans=num_spans,
        steps_per_span=5,
        batch_size=8,
        learning_rates=learning_rates,
        num_rng_seeds=2,
        data="tiny",
        esper={"blueprints": ["conv", "low_rank"], "trial_steps": [5, 10]},
    )
    return task


def result(val_metric: float = 50.0, *, flops: int = 1_000) -> Result:
    """A result that nothing was trained for."""
    return Result(
        val_loss=1.0,
        val_metric=val_metric,
        test_loss=1.0,
        test_metric=val_metric,
        num_parameters=10,
        forward_flops=1,
        training_flops=flops,
        search_flops=0,
        cpu_s=1.0,
        wall_s=1.0,
        history=[],
    )
