"""Schedulers of a hand-written loop: found, and kept in step with groups that come and go."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

from tests.tolaria.plain_loops import (
    SEED,
    TRAIN,
    assert_tracked,
    attach,
    evaluate,
    make_host,
    train_epoch,
)
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria.learning_rate import SEED_KEY, UnifiedLRController

FACTOR = 0.25
NUM_STEPS = 100


def _chained(optimizer: Optimizer) -> Any:
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
    "ChainedScheduler": _chained,
    "nested": _nested,
}


def _step(scheduler: Any) -> None:
    if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
        scheduler.step(1.0)
    else:
        scheduler.step()


def _make(model: nn.Module) -> Optimizer:
    """Two groups with rates of their own, and momentum for the schedulers that cycle it."""
    groups = [{"params": model.conv.parameters()}, {"params": model.norm.parameters(), "lr": 0.02}]
    rest = {"params": model.head.parameters(), "lr": 0.01}
    return torch.optim.SGD([*groups, rest], lr=0.05, momentum=0.9)


def _host_rates(optimizer: Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups if SEED_KEY not in group]


def _undisturbed(kind: str, first_step: int) -> list[list[float]]:
    """The host's rates in every step of a run without Esper."""
    optimizer = _make(make_host())
    scheduler, rates = None, []
    for step in range(24):
        if step == first_step:
            scheduler = SCHEDULERS[kind](optimizer)
        optimizer.step()
        rates.append(_host_rates(optimizer))
        if scheduler is not None:
            _step(scheduler)
    return rates


@pytest.mark.parametrize(
    "born",
    ["before attach", pytest.param("after attach", marks=pytest.mark.slow), "after the graft"],
)
@pytest.mark.parametrize("kind", SCHEDULERS)
def test_every_scheduler_of_torch_lives_through_a_graft_and_a_removal(
    kind: str, born: str, tmp_path: Path
) -> None:
    """Stepped after every batch, a scheduler gives the host's groups the rates of a run without
    Esper; in every optimizer step the seed's rate is the factor times its host group's; when the
    seed is gone the scheduler is as it would be without it. Nobody told Esper of the scheduler."""
    model = make_host()
    optimizer = _make(model)
    made = [SCHEDULERS[kind](optimizer)] if born == "before attach" else []
    settings = {"loss_fn": None, "data": None, "example": TRAIN[0][0]}
    esper = attach(
        model,
        optimizer,
        tmp_path / "run",
        schedule=((1, "conv", "conv"), (1, "head", "low_rank")),
        seed_learning_rate_factor=FACTOR,
        **settings,
    )
    rates: list[list[float]] = []
    followed: list[bool] = []

    def used(optimizer: Optimizer, *_: Any) -> None:
        rates.append(_host_rates(optimizer))
        for group in optimizer.param_groups:
            if SEED_KEY in group:
                host = 0 if group[SEED_KEY] == SEED else 2
                followed.append(group["lr"] == FACTOR * optimizer.param_groups[host]["lr"])

    def step_schedulers(loss: Tensor) -> None:
        for scheduler in made:
            _step(scheduler)

    optimizer.register_step_post_hook(used)
    with esper:
        for epoch in range(1, 7):
            if (born, epoch) in (("after attach", 1), ("after the graft", 3)):
                made.append(SCHEDULERS[kind](optimizer))
            train_epoch(model, optimizer, esper, after_step=step_schedulers)
            if epoch == 4:
                assert len(optimizer.param_groups) == 5
                esper.after_step(math.nan)
                assert len(optimizer.param_groups) == 3
            esper.epoch_boundary(evaluate(model))
            assert_tracked(model, optimizer)
    assert len(followed) == 2 * 8
    assert all(followed)
    assert rates == _undisturbed(kind, 8 if born == "after the graft" else 0)
    assert [len(scheduler.get_last_lr()) for scheduler in made] == [3]


def test_dead_proxies_in_the_process_do_not_matter() -> None:
    """Looking for schedulers among all objects asks none of them anything."""
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    target = nn.Linear(1, 1)
    proxies = [weakref.proxy(target)]
    del target
    scheduler = _chained(optimizer)
    rates = UnifiedLRController(nn.Linear(1, 1), [optimizer])
    rates.find_schedulers()
    assert rates._schedulers == [scheduler]
    assert len(proxies) == 1
