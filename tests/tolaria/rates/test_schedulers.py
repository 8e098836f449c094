"""Schedulers of a hand-written loop: found, and kept in step with groups that come and go."""

from __future__ import annotations

import math
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tests.tolaria.plain_loops import (
    SEED,
    TRAIN,
    assert_tracked,
    attach,
    evaluate,
    faults,
    listen,
    make_host,
    train_epoch,
)
from tests.tolaria.plain_loops import one_thread as one_thread
from tests.tolaria.rates.torch_schedulers import SCHEDULERS, chained, step_scheduler
from tolaria.rates import UnifiedLRController
from tolaria.rates.groups import SEED_KEY

FACTOR = 0.25


def _make(model: nn.Module) -> Optimizer:
    """Two groups with rates of their own, and momentum for the schedulers that cycle it."""
    groups = [{"params": model.conv.parameters()}, {"params": model.norm.parameters(), "lr": 0.02}]
    rest = {"params": model.head.parameters(), "lr": 0.01}
    return torch.optim.SGD([*groups, rest], lr=0.05, momentum=0.9)


def _cases() -> list[Any]:
    """Every scheduler, born at every time; those that are least alike are in the fast tier."""
    fast = ("OneCycleLR", "nested")
    return [
        pytest.param(kind, born, marks=() if is_fast else pytest.mark.slow)
        for kind in SCHEDULERS
        for born in ("before attach", "after attach", "after the graft")
        for is_fast in [kind in fast and born != "after attach"]
    ]


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
            step_scheduler(scheduler)
    return rates


@pytest.mark.parametrize(("kind", "born"), _cases())
def test_every_scheduler_of_torch_lives_through_a_graft_and_a_removal(
    kind: str, born: str, tmp_path: Path
) -> None:
    """Stepped after every batch, a scheduler gives the host's groups the rates of a run without
    Esper; in every optimizer step the seed's rate is the factor times its host group's, 0 while it
    is frozen; none of its own writes is taken for a foreign one. A rollback to the end of epoch 2
    takes the seeds out and the scheduler back with the rest, except one that was made since, which
    goes on. Nobody told Esper of the scheduler."""
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
                factor = FACTOR if group["params"][0].requires_grad else 0.0
                followed.append(group["lr"] == factor * optimizer.param_groups[host]["lr"])

    def step_schedulers(loss: Tensor) -> None:
        for scheduler in made:
            step_scheduler(scheduler)

    optimizer.register_step_post_hook(used)
    heard = listen(esper)
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
    assert not [fault for fault in faults(heard) if "learning rate" in fault.where]
    if born == "after the graft":
        assert rates == _undisturbed(kind, 8)
    else:
        without = _undisturbed(kind, 0)
        assert rates == without[:16] + without[8:16]
    assert [len(scheduler.get_last_lr()) for scheduler in made] == [3]


def test_dead_proxies_in_the_process_do_not_matter() -> None:
    """Looking for schedulers among all objects asks none of them anything."""
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    target = nn.Linear(1, 1)
    proxies = [weakref.proxy(target)]
    del target
    scheduler = chained(optimizer)
    rates = UnifiedLRController(nn.Linear(1, 1), [optimizer])
    rates.find_schedulers()
    assert rates.schedulers == [scheduler]
    assert len(proxies) == 1
