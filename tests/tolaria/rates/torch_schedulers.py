"""Every scheduler of torch, and some made of several, on any optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer, lr_scheduler

NUM_STEPS = 100
"""Steps after which OneCycleLR refuses to go on."""


def chained(optimizer: Optimizer) -> Any:
    steps = lr_scheduler.StepLR(optimizer, 3, 0.9)
    return lr_scheduler.ChainedScheduler([steps, lr_scheduler.ExponentialLR(optimizer, 0.98)])


def _sequential(optimizer: Optimizer) -> Any:
    warm = lr_scheduler.LinearLR(optimizer, 0.1, total_iters=4)
    cosine = lr_scheduler.CosineAnnealingLR(optimizer, 20)
    return lr_scheduler.SequentialLR(optimizer, [warm, cosine], milestones=[6])


def _nested(optimizer: Optimizer) -> Any:
    first = lr_scheduler.SequentialLR(
        optimizer,
        [lr_scheduler.ConstantLR(optimizer, 0.5, 2), lr_scheduler.LambdaLR(optimizer, _decay)],
        milestones=[3],
    )
    return lr_scheduler.ChainedScheduler([first])


def _decay(step: int) -> float:
    return 0.95**step


SCHEDULERS: dict[str, Callable[[Optimizer], Any]] = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, _decay),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda step: 0.97),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 3, 0.7),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, 9, 11, 14], 0.5),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.5, 10),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.1, total_iters=13),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.95),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 15, eta_min=0.01),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4, 2),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.02, 0.2, step_size_up=5),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.2, total_steps=NUM_STEPS),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 40, 2.0),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(
        o, patience=1, factor=0.5, min_lr=[0.001] * len(o.param_groups)
    ),
    "SequentialLR": _sequential,
    "ChainedScheduler": chained,
    "nested": _nested,
}


def step_scheduler(scheduler: Any) -> None:
    """Step it; the plateau that one of them waits for is always there."""
    if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
        scheduler.step(1.0)
    else:
        scheduler.step()
