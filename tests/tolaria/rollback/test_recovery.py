"""Recovery: the last good state comes back, and the guilty are named."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from leyline import NonFiniteError, RollbackError
from tests.tolaria.plain_loops import (
    TRAIN,
    adam,
    assert_same,
    attach,
    copy_of,
    make_host,
    train_step,
)
from tests.tolaria.plain_loops import one_thread as one_thread
from tests.tolaria.rollback.loops import parts_of
from tolaria.rollback.recovery import MAX_UNEXPLAINED, Recovery, Restored


def no_disk() -> tuple[int, int]:
    raise RollbackError("there is no disk")


def recovery_of(model: nn.Module, **settings: Any) -> tuple[Recovery, torch.optim.Optimizer]:
    optimizer = adam(model)
    options = {"from_disk": no_disk, "embargo_epochs": 2, **settings}
    recovery = Recovery(parts_of(model, [optimizer]), **options)
    recovery.take(0, 0)
    return recovery, optimizer


def recover(recovery: Recovery, step: int = 1, batch: Any = None) -> Restored:
    where = f"epoch 1, step {step}"
    return recovery.recover("loss is nan", batch, epoch=1, step=step, where=where)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_state_that_is_not_finite_never_becomes_the_good_one(bad: float) -> None:
    """A state is only taken of finite parameters."""
    model = make_host()
    recovery, _ = recovery_of(model)
    good = copy_of(model)
    with torch.no_grad():
        model.head.bias[1] = bad
    recovery.take(1, 4)

    assert recovery.newest is not None
    assert recovery.newest.epoch == 0
    recover(recovery)
    assert_same(copy_of(model), good)


def test_a_large_sum_in_half_precision_is_still_finite() -> None:
    """Parameters that are finite are good even where their sum would overflow their own dtype."""
    model = nn.Linear(256, 256).half()
    nn.init.constant_(model.weight, 1000.0)
    recovery, _ = recovery_of(model)
    recovery.take(1, 1)
    assert recovery.newest is not None
    assert recovery.newest.epoch == 1


def test_a_bad_batch_is_named_and_the_weights_are_the_last_good_ones() -> None:
    """Not a seed but the data is blamed when the batch itself is not finite."""
    model = make_host()
    recovery, optimizer = recovery_of(model)
    good = copy_of(model)
    train_step(model, optimizer, TRAIN[0])
    bad = (torch.full((2, 1, 8, 8), math.nan), torch.zeros(2, dtype=torch.long))

    with pytest.raises(NonFiniteError, match=r"step 7.*batch itself"):
        recover(recovery, 7, bad)
    assert_same(copy_of(model), good)


def test_the_run_stops_at_the_third_unexplained_loss_in_a_row() -> None:
    """Without a seed to blame going back is no cure: it is tried twice."""
    recovery, _ = recovery_of(make_host())
    for step in range(1, MAX_UNEXPLAINED):
        assert recover(recovery, step).reports == []
    with pytest.raises(NonFiniteError, match=r"step 9.*lower the learning rate"):
        recover(recovery, 9)


def test_an_epoch_without_a_bad_loss_ends_the_row() -> None:
    """Bad losses that come once in many epochs do not add up."""
    recovery, _ = recovery_of(make_host())
    for epoch in range(1, 3 * MAX_UNEXPLAINED):
        recover(recovery, 2 * epoch)
        recovery.take(epoch, 2 * epoch)
        recovery.take(epoch + 1, 2 * epoch + 1)
    assert recovery.num_unexplained == 0


def test_epochs_that_each_had_a_bad_loss_do_add_up() -> None:
    """A loss that breaks in every epoch stops the run, though each epoch's end looks good."""
    recovery, _ = recovery_of(make_host())
    for epoch in range(1, MAX_UNEXPLAINED):
        recover(recovery, epoch)
        recovery.take(epoch, epoch)
    with pytest.raises(NonFiniteError):
        recover(recovery, 9)


def test_before_there_is_a_good_state_the_error_says_so() -> None:
    """A model that starts with NaN cannot be restored."""
    model = make_host()
    with torch.no_grad():
        model.head.bias.fill_(math.nan)
    recovery, _ = recovery_of(model)
    with pytest.raises(NonFiniteError, match="before there was a good state"):
        recover(recovery)


def test_a_state_that_does_not_fit_is_looked_for_on_disk() -> None:
    """What memory cannot give back the newest checkpoint does; it is then the one in memory."""
    model = make_host()
    asked = []

    def from_disk() -> tuple[int, int]:
        asked.append(True)
        return 3, 30

    recovery, _ = recovery_of(model, from_disk=from_disk)
    model.head = nn.Linear(4, 5)
    back = recover(recovery, 31)
    assert asked == [True]
    assert (back.epoch, back.step) == (3, 30)
    assert "from disk" in back.source
    assert "head" in back.source
    good = copy_of(model)
    with torch.no_grad():
        model.head.bias.fill_(1.0)
    assert recover(recovery, 32).source == "from memory"
    assert_same(copy_of(model), good)


def test_without_memory_and_disk_the_run_stops_and_says_both() -> None:
    """The error names why neither tier could serve."""
    model = make_host()
    recovery, _ = recovery_of(model)
    model.head = nn.Linear(4, 5)
    with pytest.raises(NonFiniteError, match=r"model.head.weight was .*there is no disk"):
        recover(recovery)


def test_without_memory_for_a_state_training_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says so, and there is just nothing to go back to, or only an earlier state."""

    def refuse(*_: object) -> object:
        raise MemoryError

    monkeypatch.setattr("tolaria.rollback.arena._allocate", refuse)
    recovery, _ = recovery_of(make_host())
    assert recovery.newest is None
    assert "no memory to keep the state" in caplog.text


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_schedule_that_moves_between_the_boundary_and_the_next_step_is_followed(
    where: str,
) -> None:
    """Whether an epoch's scheduler steps before the boundary or after it, the rate gone back to is
    that of the epoch that is running, and the schedule is not an epoch behind for ever."""
    model = make_host()
    optimizer = adam(model)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    recovery = Recovery(parts_of(model, [optimizer]), no_disk, embargo_epochs=2)
    train_step(model, optimizer, TRAIN[0])
    if where == "before":
        schedule.step()
    recovery.take(1, 1)
    if where == "after":
        schedule.step()
    train_step(model, optimizer, TRAIN[1])
    recover(recovery, 2)
    assert optimizer.param_groups[0]["lr"] == 0.005
    assert schedule.last_epoch == 1
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == 0.0025


def test_a_closed_run_leaves_nothing_with_the_optimizer(tmp_path: Path) -> None:
    """No hook of ours is left."""
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run"):
        assert optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_pre_hooks
