"""Rollbacks in whole runs: what is lost, who goes, and that the rest is as if nothing had been."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from kasmina.slots.slot import attached_seeds
from leyline import NonFiniteError, Stage
from tests.tolaria.disk.test_unreadable import no_more_files
from tests.tolaria.plain_loops import (
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
from tests.tolaria.rollback.loops import GROWN, NO_TRIALS, Loop, NewLoop, grown, stage
from tests.tolaria.rollback.loops import new_loop as new_loop
from tolaria.rollback.recovery import MAX_UNEXPLAINED
from tolaria.rollback.triggers import MemoryLimit


@pytest.mark.parametrize(
    "kind",
    [*(pytest.param(kind, marks=pytest.mark.slow) for kind in ("sgd", "adamw")), "adamw-scaler"],
)
def test_after_a_rollback_the_run_is_its_twin_that_never_went_wrong(
    kind: str, new_loop: NewLoop, tmp_path: Path
) -> None:
    """Broken in the middle of an epoch, restored, and from there a hundred steps and their
    boundaries bit for bit those of a run that stood at that boundary and met the same batches."""
    broken = new_loop(kind, **NO_TRIALS, policy="hold")
    broken.epoch()
    broken.steps(2)
    broken.step(poison=math.nan)
    broken.num_done = 4
    ours = [loss for _ in range(25) for loss in broken.epoch()], broken.fingerprint()
    twin = Loop(kind, tmp_path / "twin", **NO_TRIALS, policy="hold")
    assert twin.esper is not None
    with twin.esper:
        theirs = [loss for _ in range(26) for loss in twin.epoch()][4:], twin.fingerprint()
    if kind == "adamw-scaler":  # a scaler skips the step that the poison is in: nothing broke
        assert math.isfinite(sum(ours[0]))
    assert ours == theirs


def test_a_rollback_out_of_a_graft_is_its_twin_without_the_graft(
    new_loop: NewLoop, tmp_path: Path
) -> None:
    """Two epochs after the graft the run breaks: a hundred steps later weights, moments, rates and
    streams are bit for bit those of a run whose seed was taken out before its first step."""
    ours = grown(new_loop, 4)
    assert stage(ours) is Stage.EVALUATING
    ours.step(poison=math.nan)
    ours.num_done = 8
    assert ours.esper is not None
    losses = [ours.steps(4) for _ in range(25)]
    end = ours.fingerprint()
    twin = Loop("adamw", tmp_path / "twin", **GROWN)
    assert twin.esper is not None
    with twin.esper:
        twin.epoch()
        twin.epoch()
        executor = twin.parts.executor
        executor.roll_back(SEED, 3, "as the other", 15)
        twin.parts.rates.reconcile(executor.live_seeds(), executor.take_moments)
        assert [twin.steps(4) for _ in range(25)] == losses
        other = twin.fingerprint()
    for piece in ("weights", "moments", "rates", "schedule", "streams"):
        assert end[piece] == other[piece], piece


def test_a_bad_loss_takes_the_unsettled_seed_out(tmp_path: Path) -> None:
    """The host and its optimizer state are bit for bit those of the last boundary, the seed is
    rolled back with an embargo, one fault says what was lost, and training goes on."""
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run", **GROWN) as esper:
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


def test_going_back_again_and_again_ends_in_the_same_state(new_loop: NewLoop) -> None:
    """A rollback of a rollback: the second goes back to where the first had gone."""
    loop = grown(new_loop, 3)
    loop.step(poison=math.nan)
    first = copy_of(loop.model), copy_of_state(loop.optimizer)
    loop.steps(2)
    loop.step(poison=math.nan)
    assert_same(copy_of(loop.model), first[0])
    assert_same_state(copy_of_state(loop.optimizer), first[1])


@pytest.mark.slow
@pytest.mark.parametrize("num_rollbacks", [8, pytest.param(100, marks=pytest.mark.slow)])
def test_many_rollbacks_take_no_more_memory_than_one(num_rollbacks: int, new_loop: NewLoop) -> None:
    """With a seed grafted and lost every time, the flat buffers are those of the beginning."""
    loop = grown(new_loop, 2)
    recovery = loop.esper.recovery if loop.esper is not None else None
    assert recovery is not None
    sizes, sides = set(), set()
    state = recovery.newest
    assert state is not None
    for _ in range(num_rollbacks):
        state.restore(loop.parts)
        recovery.take(2, 8)
        assert recovery.newest is not None
        state = recovery.newest
        loop.steps(1)
        loop.step(poison=math.nan)
        assert SEED not in attached_seeds(loop.model)
        assert recovery.newest is not None
        sizes.add(recovery.newest.size_bytes)
        sides.add(id(recovery.newest._side))
    assert len(sizes) == 1
    assert len(sides) <= 3


@pytest.mark.parametrize("kind", ["adamw", pytest.param("sgd", marks=pytest.mark.slow)])
def test_a_guarded_step_is_undone_and_its_batch_skipped(
    kind: str, new_loop: NewLoop, tmp_path: Path
) -> None:
    """With a seed in the middle of its graft: the run is bit for bit one that was never given the
    bad batches, and the seed lives on through its whole graft."""
    settings = {**GROWN, "ramp_epochs": 2, "guard_every_step": True}

    def losses(loop: Loop, bad: bool) -> list[float]:
        found = []
        for epoch in range(6):
            for index, batch in enumerate(TRAIN):
                if bad and epoch in (2, 3, 5) and index == 1:
                    poisoned = (torch.full_like(batch[0], math.nan), batch[1])
                    assert math.isnan(loop.step(poisoned))
                found.append(loop.step(batch))
            assert loop.esper is not None
            loop.esper.epoch_boundary(evaluate(loop.model))
        return found

    ours = grown(new_loop, 0, kind, **settings)
    with_bad = losses(ours, bad=True), ours.fingerprint()
    assert stage(ours) in (Stage.STABILIZATION, Stage.EVALUATING)
    twin = Loop(kind, tmp_path / "twin", **settings)
    assert twin.esper is not None
    with twin.esper:
        without = losses(twin, bad=False), twin.fingerprint()
    # ramp_steps counts batches that were met, so it is not compared.
    for each in (with_bad, without):
        del each[1]["executor"]
    assert with_bad == without


def test_three_guarded_steps_in_a_row_stop_the_run_and_name_the_batch(new_loop: NewLoop) -> None:
    """Two are skipped; the third error says step, epoch and batch."""
    loop = new_loop(**NO_TRIALS, policy="hold", guard_every_step=True)
    loop.epoch()
    loop.step()
    for _ in range(MAX_UNEXPLAINED - 1):
        loop.step(poison=math.nan)
    with pytest.raises(NonFiniteError, match=r"epoch 2, step 8 \(batch 4 of the epoch\)"):
        loop.step(poison=math.nan)


def test_a_run_that_must_stop_says_why_though_its_checkpoints_cannot_be_listed(
    new_loop: NewLoop,
) -> None:
    """The error is the one that ends the run, and what the disk refuses is said beside it."""
    loop = new_loop(**NO_TRIALS, policy="hold", guard_every_step=True, checkpoint=True)
    loop.epoch()
    for _ in range(MAX_UNEXPLAINED - 1):
        loop.step(poison=math.nan)
    said = r"epoch 2, step 7 .*is not known: .*checkpoints cannot be read: Too many open files"
    with no_more_files(), pytest.raises(NonFiniteError, match=said):
        loop.step(poison=math.nan)


def test_a_gradient_that_breaks_the_weights_is_found_at_the_boundary_at_the_latest(
    new_loop: NewLoop,
) -> None:
    """A last step with a finite loss and a broken gradient: the epoch that it ends is undone, and
    nothing is decided on its metrics."""
    loop = grown(new_loop, 2)
    before = copy_of(loop.model)["conv.weight"]
    loop.steps(3)
    with torch.no_grad():
        loop.model.conv.weight[0] = math.nan
    assert loop.esper is not None
    events = listen(loop.esper)
    report = loop.esper.epoch_boundary({"val_loss": 1.0})
    assert torch.equal(loop.model.conv.weight, before)
    assert "growth holds" in report.decision.cause
    assert stage(loop) is Stage.ROLLED_BACK
    assert faults(events)[0].where == "parameters"
    assert "1 epoch, 3 steps lost" in faults(events)[0].action


@pytest.mark.parametrize("guard_every_step", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("trigger", ["validation", "spike", "gradient", "memory", "request"])
def test_every_trigger_takes_the_unsettled_seed_out(
    trigger: str, guard_every_step: bool, new_loop: NewLoop
) -> None:
    """A collapsed metric, a loss or a norm three times far above its usual, too much memory, and a
    loop that asks for it; also where single steps are guarded, for no single step did it."""
    loop = grown(new_loop, 2, guard_every_step=guard_every_step)
    esper = loop.esper
    assert esper is not None
    for _ in range(24):
        esper.after_step(1.0, grad_norm=1.0)
    events = listen(esper)
    if trigger == "validation":
        esper.epoch_boundary({"val_loss": math.nan})
    elif trigger == "memory":
        esper.watch.memory = MemoryLimit(100, lambda: 101)
        esper.epoch_boundary({"val_loss": 1.0})
    elif trigger == "request":
        esper.roll_back("out of memory")
    else:
        for _ in range(3):
            assert stage(loop) is Stage.GRAFTING
            value = 1e4 if trigger == "spike" else 1.0
            esper.after_step(value, grad_norm=1.0 if trigger == "spike" else torch.tensor(1e4))
    assert stage(loop) is Stage.ROLLED_BACK
    (fault,) = faults(events)
    assert fault.where == {"spike": "loss"}.get(trigger, trigger)


def test_a_run_in_which_nothing_grows_is_not_rolled_back_for_any_finite_loss(
    new_loop: NewLoop,
) -> None:
    """Its weights are those of a run without Esper, whatever its loss and its metric do."""
    loop = new_loop(**NO_TRIALS, policy="hold")
    loop.epoch()
    before = copy_of(loop.model)
    assert loop.esper is not None
    events = listen(loop.esper)
    for value in [1.0] * 40 + [1e30] * 10:
        loop.esper.after_step(value, grad_norm=value)
    loop.esper.epoch_boundary({"val_loss": math.nan})
    assert not faults(events)
    assert_same(copy_of(loop.model), before)


def test_what_memory_cannot_give_back_comes_from_disk(new_loop: NewLoop) -> None:
    """With the state in memory of no use, the newest checkpoint is put into the live model, with
    its seeds, moments and rates, and the seed that has not settled is taken out."""
    loop = grown(new_loop, 3, checkpoint=True)
    assert loop.esper is not None
    before = {n: v for n, v in copy_of(loop.model).items() if ".esper" not in n}
    moments = copy_of_state(loop.optimizer)[: len(before)]
    loop.steps(2)
    recovery = loop.esper.recovery
    for state in (recovery.newest, recovery.before_graft):
        assert state is not None
        state._side.fill({"model.gone": torch.ones(3)})
    events = listen(loop.esper)
    loop.step(poison=math.nan)
    (fault,) = faults(events)
    assert "restored from disk" in fault.action
    assert "3 steps lost" in fault.action
    assert_same(copy_of(loop.model), before)
    ours = copy_of_state(loop.optimizer)
    assert_same_state(ours, moments[: len(ours)])
    assert SEED not in attached_seeds(loop.model)
    assert len(loop.optimizer.param_groups) == 1
    loop.epoch()


def test_a_resumed_run_goes_back_to_where_the_undisturbed_one_did(
    new_loop: NewLoop, tmp_path: Path
) -> None:
    """Closed after two epochs, run again, broken in the third: the end is bit for bit that of the
    run that was broken at the same place and never closed."""
    settings = {**NO_TRIALS, "policy": "hold", "checkpoint": True, "resume": True}

    def break_and_end(loop: Loop) -> dict[str, Any]:
        loop.steps(2)
        loop.step(poison=math.nan)
        loop.epoch(1)
        loop.epoch()
        return loop.fingerprint()

    undisturbed = new_loop(**settings)
    undisturbed.epoch()
    undisturbed.epoch()
    end = break_and_end(undisturbed)
    first = Loop("adamw", tmp_path / "cut", **settings)
    first.epoch()
    first.epoch()
    assert first.esper is not None
    first.esper.close("interrupted")
    second = Loop("adamw", tmp_path / "cut", **settings)
    assert second.esper is not None
    with second.esper:
        assert second.esper.epoch == 2
        second.num_done = 8
        assert break_and_end(second) == end
