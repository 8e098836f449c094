"""A run that is ended because its risk is critical, and goes on from its checkpoint."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from leyline import NonFiniteError, RiskChanged, RiskError, RiskLevel, Stage
from tests.tolaria.lightning.models import MLP, PLANT, esper, fit, listen
from tests.tolaria.plain_loops import (
    SCHEDULE,
    SEED,
    TRAIN,
    adam,
    attach,
    faults,
    make_host,
    run,
    train_epoch,
)
from tests.tolaria.plain_loops import listen as listen_to
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria.commands.history import read_view
from tolaria.disk.checkpoint import verify
from tolaria.disk.run import RunDirectory
from tolaria.rollback.recovery import MAX_UNEXPLAINED
from tolaria.rollback.triggers import MemoryLimit

SETTINGS: dict[str, Any] = {
    "loss_fn": None,
    "data": None,
    "example": TRAIN[0][0],
    "schedule": SCHEDULE,
    "checkpoint": True,
}


def test_memory_that_a_rollback_does_not_free_ends_the_run_which_can_go_on(tmp_path: Path) -> None:
    """Above its limit at the rollback and at two boundaries more: the next step says why, what to
    do and the checkpoint; a fresh model goes on from there, at a level that falls as any does."""
    model = make_host()
    optimizer = adam(model)
    ended = attach(model, optimizer, tmp_path / "run", **SETTINGS)
    run(model, optimizer, ended, 2)
    ended.watch.memory = MemoryLimit(100, lambda: 101)
    reports = run(model, optimizer, ended, 3)
    assert ended.executor.table.stage(SEED) is Stage.ROLLED_BACK
    assert [r.decision.risk_level for r in reports] == [3, 3, 4]
    events = listen_to(ended)
    way_on = r"raise that limit.*; then go on from .*step-00000020"
    with pytest.raises(RiskError, match=way_on) as told, ended:
        train_epoch(model, optimizer, ended)
    assert "memory was above memory_limit_bytes at 3 boundaries in a row" in str(told.value)
    assert [(fault.where, fault.action) for fault in faults(events)] == [("risk", "the run stops")]
    assert verify(tmp_path / "run" / "checkpoints" / "active" / "step-00000020") == []
    again = make_host(3)
    optimizer = adam(again)
    with attach(again, optimizer, tmp_path / "run", **SETTINGS, resume=True) as esper:
        assert esper.epoch == 5
        levels = [r.decision.risk_level for r in run(again, optimizer, esper, 8)]
        assert levels == [4, 3, 3, 2, 2, 1, 1, 0]


@pytest.mark.slow
def test_a_level_that_would_stop_it_again_does_not_come_back_from_before_the_resume(
    tmp_path: Path,
) -> None:
    """Gone back to a checkpoint from before the critical boundary, the run gets past it: at red."""
    model = make_host()
    optimizer = adam(model)
    ended = attach(model, optimizer, tmp_path / "run", **SETTINGS, keep_checkpoints=9)
    run(model, optimizer, ended, 2)
    ended.watch.memory = MemoryLimit(100, lambda: 101)
    run(model, optimizer, ended, 3)
    ended.close("failed")
    for step in (16, 20):
        path = tmp_path / "run" / "checkpoints" / "active" / f"step-{step:08d}"
        path.rename(tmp_path / path.name)
    again = make_host(3)
    optimizer = adam(again)
    with attach(again, optimizer, tmp_path / "run", **SETTINGS, resume=True) as esper:
        assert esper.epoch == 3
        levels = [r.decision.risk_level for r in run(again, optimizer, esper, 4)]
        assert levels == [3, 3, 3, 2]


@pytest.mark.slow
@pytest.mark.parametrize("most", [None, 2])
def test_rollbacks_end_a_run_that_was_told_how_many(most: int | None, tmp_path: Path) -> None:
    """The second within ten boundaries, if `max_rollbacks` is 2; else the run goes on."""
    model = make_host()
    optimizer = adam(model)
    settings = {**SETTINGS, "schedule": (*SCHEDULE, (1, "head", "low_rank"))}
    with attach(model, optimizer, tmp_path / "run", **settings, max_rollbacks=most) as esper:
        for _ in range(2):
            esper.roll_back("out of memory")
            run(model, optimizer, esper, 1)
        if most is None:
            run(model, optimizer, esper, 1)
        else:
            with pytest.raises(RiskError, match="max_rollbacks is 2: lower the learning rate"):
                run(model, optimizer, esper, 1)


def test_a_run_that_not_finite_losses_end_names_its_checkpoint_too(tmp_path: Path) -> None:
    """The error says where to go on from, and the level is told to be critical."""
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run", **SETTINGS) as esper:
        run(model, optimizer, esper, 1)
        events = listen_to(esper)
        for _ in range(MAX_UNEXPLAINED - 1):
            esper.after_step(math.nan)
        with pytest.raises(NonFiniteError, match=r"then go on from .*step-00000004"):
            esper.after_step(math.nan)
        (change,) = [event for event in events if isinstance(event, RiskChanged)]
        assert change.now == RiskLevel.CRITICAL
        assert "without a seed to blame" in change.causes[0]


class Broken(MLP):
    """Its loss is NaN in the third step of its third epoch."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        return loss * math.nan if (self.current_epoch, batch_idx) == (2, 2) else loss


@pytest.mark.slow
def test_under_lightning_the_fit_ends_with_its_epoch_committed(tmp_path: Path) -> None:
    """`max_rollbacks=1`: the fit raises at the first step of epoch 4, the run is closed as failed,
    and `ckpt_path` of the newest checkpoint goes on from the end of epoch 3 to the end."""
    settings = {"schedule": PLANT, "max_rollbacks": 1, "checkpoint": True}
    callback = esper(tmp_path / "run", **settings)
    with pytest.raises(RiskError, match="after epoch 3: rollbacks: 1 within 10 boundaries"):
        fit(Broken, [callback], max_epochs=5)
    with RunDirectory.open(tmp_path / "run") as directory:
        ended = read_view(directory).ended
        assert ended is not None
        assert (ended.status, ended.epoch) == ("failed", 3)
    active = tmp_path / "run" / "checkpoints" / "active"
    second = esper(tmp_path / "run", **settings)
    events = listen(second)
    fit(MLP, [second], max_epochs=5, ckpt_path=max(active.iterdir()))
    changed = [(e.epoch, e.was, e.now) for e in events if isinstance(e, RiskChanged)]
    assert changed == [(5, 4, 3)]
