"""Recovery: bad losses are seen, the last good state comes back, and the guilty are named."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kasmina import Executor
from leyline import ConfigError, NonFiniteError, Stage
from tests.tolaria.plain_loops import (
    SCHEDULE,
    SEED,
    TRAIN,
    adam,
    assert_same,
    assert_same_state,
    assert_tracked,
    attach,
    copy_of,
    copy_of_state,
    evaluate,
    faults,
    listen,
    make_host,
    run,
    train_epoch,
    train_step,
)
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria.recovery import MAX_UNEXPLAINED, LossWatch, Recovery


def _recovery(model: nn.Module) -> tuple[Recovery, torch.optim.Optimizer]:
    optimizer = adam(model)
    recovery = Recovery(model, [optimizer], Executor(model, rng_seed=0), embargo_epochs=2)
    recovery.take(0, 0)
    return recovery, optimizer


@pytest.mark.parametrize(
    ("loss", "seen"),
    [(1.5, 1.5), (2, 2.0), (torch.tensor(0.5), 0.5), (torch.tensor([0.25]), 0.25), (None, None)],
)
def test_one_number_in_any_form_is_a_loss(loss: Any, seen: float | None) -> None:
    """A float, an int, a 0-dim tensor, a tensor of one item, or none at all."""
    assert LossWatch().observe(loss) == seen


@pytest.mark.parametrize("loss", [torch.ones(3), "0.5", [1.0], torch.ones(0)])
def test_what_is_not_one_number_is_refused(loss: Any) -> None:
    """The error names what was given and what to give."""
    with pytest.raises(ConfigError, match=r"loss is .*give one number"):
        LossWatch().observe(loss)


def test_a_loss_with_a_graph_does_not_keep_it() -> None:
    """Watching a loss leaves its graph to the caller."""
    weight = torch.ones(1, requires_grad=True)
    loss = (weight * 2).sum()
    LossWatch().observe(loss)
    loss.backward()
    assert weight.grad is not None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_state_that_is_not_finite_never_becomes_the_good_one(bad: float) -> None:
    """A snapshot is only taken of finite parameters."""
    model = make_host()
    recovery, _ = _recovery(model)
    good = copy_of(model)
    with torch.no_grad():
        model.head.bias[1] = bad
    recovery.take(1, 4)

    assert recovery.snapshot.epoch == 0
    recovery.recover(math.nan, None, epoch=2, step=5)
    assert_same(copy_of(model), good)


def test_a_large_sum_in_half_precision_is_still_finite() -> None:
    """Parameters that are finite are good even where their sum would overflow their own dtype."""
    model = nn.Linear(256, 256).half()
    nn.init.constant_(model.weight, 1000.0)
    recovery = Recovery(model, [adam(model)], Executor(model, rng_seed=0), 1)
    recovery.take(1, 1)
    assert recovery.snapshot.epoch == 1


def test_a_bad_batch_is_named_and_the_weights_are_the_last_good_ones() -> None:
    """Not a seed but the data is blamed when the batch itself is not finite."""
    model = make_host()
    recovery, optimizer = _recovery(model)
    good = copy_of(model)
    train_step(model, optimizer, TRAIN[0])
    bad = (torch.full((2, 1, 8, 8), math.nan), torch.zeros(2, dtype=torch.long))

    with pytest.raises(NonFiniteError, match="batch itself"):
        recovery.recover(math.nan, bad, epoch=1, step=1)
    assert_same(copy_of(model), good)


def test_the_run_stops_at_the_third_unexplained_loss_in_a_row() -> None:
    """Without a seed to blame going back is no cure: it is tried twice."""
    recovery, _ = _recovery(make_host())
    for step in range(1, MAX_UNEXPLAINED):
        assert recovery.recover(math.nan, None, epoch=1, step=step) == []
    with pytest.raises(NonFiniteError, match="lower the learning rate"):
        recovery.recover(math.nan, None, epoch=1, step=9)


def test_an_epoch_without_a_bad_loss_ends_the_row() -> None:
    """Bad losses that come once in many epochs do not add up."""
    recovery, _ = _recovery(make_host())
    for epoch in range(1, 3 * MAX_UNEXPLAINED):
        recovery.recover(math.nan, None, epoch=epoch, step=2 * epoch)
        recovery.take(epoch, 2 * epoch)
        recovery.take(epoch + 1, 2 * epoch + 1)
    assert recovery.num_unexplained == 0


def test_epochs_that_each_had_a_bad_loss_do_add_up() -> None:
    """A loss that breaks in every epoch stops the run, though each epoch's end looks good."""
    recovery, _ = _recovery(make_host())
    for epoch in range(1, MAX_UNEXPLAINED):
        recovery.recover(math.nan, None, epoch=epoch, step=epoch)
        recovery.take(epoch, epoch)
    with pytest.raises(NonFiniteError):
        recovery.recover(math.nan, None, epoch=9, step=9)


def test_before_there_is_a_good_state_the_error_says_so() -> None:
    """A model that starts with NaN cannot be restored."""
    model = make_host()
    with torch.no_grad():
        model.head.bias.fill_(math.nan)
    recovery, _ = _recovery(model)
    with pytest.raises(NonFiniteError, match="before there was a good state"):
        recovery.recover(math.nan, None, epoch=1, step=1)


def test_a_bad_loss_in_a_hand_written_loop_takes_the_unsettled_seed_out(tmp_path: Path) -> None:
    """The host and its optimizer state are bit for bit those of the last boundary, the seed is
    rolled back with an embargo, one fault says what was lost, and training goes on."""
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run", schedule=SCHEDULE) as esper:
        run(model, optimizer, esper, 1)
        train_epoch(model, optimizer, esper)
        values = evaluate(model)
        host, state = copy_of(model), copy_of_state(optimizer)
        esper.epoch_boundary(values)
        assert esper.executor.table.stage(SEED) is Stage.GRAFTING
        train_epoch(model, optimizer, esper, batches=TRAIN[:2])
        events = listen(esper)

        train_step(model, optimizer, TRAIN[2])
        esper.after_step(math.nan, TRAIN[2])

        assert_same(copy_of(model), host)
        assert_same_state(copy_of_state(optimizer), state)
        assert_tracked(model, optimizer)
        assert esper.executor.table.stage(SEED) is Stage.ROLLED_BACK
        assert esper.executor.table.get(SEED, "embargo_epochs_left") == 15
        (fault,) = faults(events)
        assert fault.where == "loss"
        assert "3 steps lost" in fault.action
        assert SEED in fault.action
        assert all(math.isfinite(loss) for loss in train_epoch(model, optimizer, esper))
        esper.epoch_boundary(evaluate(model))


def test_a_loss_that_stops_the_run_is_a_fault_on_record(tmp_path: Path) -> None:
    """The report of a run that failed says why."""
    model = make_host()
    optimizer = adam(model)
    esper = attach(model, optimizer, tmp_path / "run")
    for _ in range(MAX_UNEXPLAINED - 1):
        esper.after_step(math.nan)
    with pytest.raises(NonFiniteError), esper:
        esper.after_step(math.nan)
    report = esper.report()
    assert report["status"] == "failed"
    assert [fault["action"] for fault in report["faults"]][-1] == "the run stops"
