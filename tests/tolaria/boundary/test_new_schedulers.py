"""A scheduler that a loop makes in mid-run is known where it matters: at grafts and rollbacks."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.optim.lr_scheduler import LambdaLR

from kasmina.slots.slot import attached_seeds
from tests.tolaria.plain_loops import (
    SCHEDULE,
    adam,
    attach,
    evaluate,
    make_host,
    run,
    train_epoch,
)
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria.rates import schedulers

UNTRIED: dict[str, Any] = {"schedule": SCHEDULE, "trial_steps": [1]}


def _halving(optimizer: Any) -> LambdaLR:
    return LambdaLR(optimizer, lambda epoch: 0.5**epoch)


def _num_references() -> int:
    """References that a scheduler holds to its optimizer."""
    optimizer = adam(make_host())
    before = sys.getrefcount(optimizer)
    scheduler = _halving(optimizer)
    assert scheduler.optimizer is optimizer
    return sys.getrefcount(optimizer) - before


@pytest.mark.parametrize("counts", [True, False])
def test_its_lists_follow_a_graft_and_come_back_where_that_is_undone(
    counts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made in the epoch that a graft ends, while others let go of the optimizer so that no sign of
    it is left, it has a rate for the seed's group too, and steps; if that boundary fails late its
    lists are as before."""
    model = make_host()
    optimizer = adam(model)
    holders = [optimizer] * _num_references()
    with attach(model, optimizer, tmp_path / "run", **UNTRIED) as esper:
        train_epoch(model, optimizer, esper)
        esper.epoch_boundary(evaluate(model))  # not by run(), whose frame holds the optimizer too
        train_epoch(model, optimizer, esper)
        holders.clear()
        scheduler = _halving(optimizer)
        reconcile = esper.rates.reconcile

        def breaks(*arguments: Any) -> None:
            reconcile(*arguments)
            if not counts:
                raise RuntimeError("no")

        monkeypatch.setattr(esper.rates, "reconcile", breaks)
        report = esper.epoch_boundary(evaluate(model))
        assert report.decision.undone == ("" if counts else "apply")
        num_groups = 1 + counts
        assert len(attached_seeds(model)) == counts
        assert len(optimizer.param_groups) == len(scheduler.base_lrs) == num_groups
        assert len(scheduler.lr_lambdas) == num_groups
        train_epoch(model, optimizer, esper)
        scheduler.step()
        assert scheduler.get_last_lr() == [0.005] * num_groups


def test_it_goes_back_with_the_run(tmp_path: Path) -> None:
    """Made between two boundaries of a run without seeds, the state of the next holds it."""
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run", policy="hold") as esper:
        run(model, optimizer, esper, 1)
        scheduler = _halving(optimizer)
        run(model, optimizer, esper, 1)
        scheduler.step()
        train_epoch(model, optimizer, esper, after_step=lambda _: scheduler.step())
        assert scheduler.last_epoch > 1
        esper.roll_back("a test")
        assert scheduler.last_epoch == 1
        assert optimizer.param_groups[0]["lr"] == 0.005


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Dead holders of an optimizer go when Python collects them, and that is a reason to look."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
def test_a_boundary_that_moves_no_seed_does_not_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All objects of the process are asked at the first step, the first boundary and where a seed
    comes or goes; in the epochs after it, with the seed in flight, nobody is."""
    searched: list[int] = []
    find = schedulers.find

    def counted(*arguments: Any) -> Any:
        searched.append(esper.epoch)
        return find(*arguments)

    monkeypatch.setattr(schedulers, "find", counted)
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run", **UNTRIED) as esper:
        run(model, optimizer, esper, 7)
    assert searched == [0, 1, 2]
