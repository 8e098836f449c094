"""A run that is resumed while a graft is open, and meets a fault before that has settled."""

from __future__ import annotations

import logging
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.tolaria.plain_loops import (
    SCHEDULE,
    adam,
    assert_same,
    attach,
    copy_of,
    evaluate,
    faults,
    listen,
    make_host,
    train_epoch,
)
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria import Orchestrator

BAD_EPOCH = 4
"""In it the loss is NaN; the graft has begun after epoch 2 and not settled."""


def _attached(run_dir: Path, **settings: Any) -> tuple[nn.Module, Any, Any, Orchestrator]:
    model = make_host()
    optimizer = adam(model)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    options = {"schedule": SCHEDULE, "checkpoint": True, "schedulers": [scheduler]}
    esper = attach(model, optimizer, run_dir, **options, **settings)
    return model, optimizer, scheduler, esper


def _run(parts: tuple[nn.Module, Any, Any, Orchestrator], last_epoch: int) -> dict[str, Any]:
    """Train to the end of an epoch; the faults, weights and optimizer state of then."""
    model, optimizer, scheduler, esper = parts
    heard = listen(esper)
    with esper:
        for epoch in range(esper.epoch + 1, last_epoch + 1):
            train_epoch(model, optimizer, esper)
            if epoch == BAD_EPOCH:
                esper.after_step(math.nan)
            scheduler.step()
            esper.epoch_boundary(evaluate(model))
        moments = [s["exp_avg"].clone() for s in optimizer.state.values()]
        rows = esper.executor.table.rows().tobytes()
    return {
        "faults": [(fault.where, fault.action) for fault in faults(heard)],
        "weights": copy_of(model),
        "moments": moments,
        "rows": rows,
        "rates": [group["lr"] for group in optimizer.param_groups],
    }


def test_it_goes_back_to_before_the_graft_as_the_run_that_never_stopped(tmp_path: Path) -> None:
    """The state from before the graft comes from its checkpoint: the ends are the same bits, and
    the same steps were lost."""
    whole = _run(_attached(tmp_path / "whole"), 7)
    _run(_attached(tmp_path / "parts"), 3)
    resumed = _run(_attached(tmp_path / "parts", resume=True), 7)
    assert "1 epoch, " in whole["faults"][0][1]
    for name in ("faults", "rows", "rates"):
        assert resumed[name] == whole[name]
    assert_same(resumed["weights"], whole["weights"])
    assert all(map(torch.equal, resumed["moments"], whole["moments"]))


def test_without_a_fault_looking_back_changes_nothing(tmp_path: Path) -> None:
    """Straight after the resume weights, moments and table are those of the checkpoint."""
    ended = _run(_attached(tmp_path / "run"), 3)
    again = _run(_attached(tmp_path / "run", resume=True), 3)
    assert again["rows"] == ended["rows"]
    assert_same(again["weights"], ended["weights"])
    assert all(map(torch.equal, again["moments"], ended["moments"]))


def test_a_state_that_is_not_to_be_had_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With its checkpoint gone the run goes on, and the log says where a fault would go back to."""
    _run(_attached(tmp_path / "run"), 3)
    before = sorted((tmp_path / "run" / "checkpoints" / "active").iterdir())[-2]
    shutil.rmtree(before)
    with caplog.at_level(logging.INFO, "esper"):
        resumed = _run(_attached(tmp_path / "run", resume=True), 7)
    assert "before the open graft, is not to be had" in caplog.text
    assert "taken out" in resumed["faults"][0][1]
