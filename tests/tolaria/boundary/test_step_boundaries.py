"""Boundaries within an epoch: every so many steps, in a hand-written loop."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from leyline import BoundaryTiming, ConfigError, Decision, EpochMetrics, Stage, StatePacket
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
    listen,
    loss_fn,
    make_host,
    run,
    streams,
    train_epoch,
    train_step,
)
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria.config import load_config
from tolaria.disk.journal import read
from tolaria.resume import growth_state


@pytest.mark.parametrize(
    ("every", "passed_at", "num_within"),
    [(3, [3, 4, 7, 8], 2), (2, [2, 4, 6, 8], 4), (4, [4, 8], 2), (100, [4, 8], 0)],
)
def test_a_boundary_is_passed_every_so_many_steps_and_at_every_epoch_s_end(
    every: int, passed_at: list[int], num_within: int, tmp_path: Path
) -> None:
    """Two epochs of four steps: the steps are counted from the last boundary; where an epoch ends
    with a boundary's last step the two are one, and `after_step` hands out the reports."""
    model = make_host()
    optimizer = adam(model)
    settings = {"boundary_every_steps": every, "policy": "hold"}
    with attach(model, optimizer, tmp_path / "run", **settings) as esper:
        events = listen(esper)
        within: list[int] = []
        for _ in range(2):
            for batch in TRAIN:
                report = esper.after_step(train_step(model, optimizer, batch), batch)
                if report is not None:
                    within.append(report.epoch)
            esper.epoch_boundary(evaluate(model))
    timings = [event.epoch for event in events if isinstance(event, BoundaryTiming)]
    assert timings == list(range(1, len(passed_at) + 1)), "each is timed once"
    told = {event.epoch: event for event in events if isinstance(event, EpochMetrics)}
    assert [event.step for event in told.values()] == passed_at
    assert len(within) == num_within
    assert set(within) <= set(timings)
    for event in told.values():
        assert ("val_loss" in event.metrics) == (event.step % 4 == 0)


def test_the_decision_sees_the_last_epoch_s_metrics_and_the_mean_loss_of_the_steps(
    tmp_path: Path,
) -> None:
    """Within an epoch the packet holds what the epoch before measured, and the mean of the losses
    since the last boundary; what is told as this boundary's metrics is the mean alone."""
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run", policy="hold", boundary_every_steps=3) as esper:
        run(model, optimizer, esper, 1)
        known = dict(esper.metrics)
        events = listen(esper)
        losses = train_epoch(model, optimizer, esper)
        (packet,) = [event for event in events if isinstance(event, StatePacket)]
        mean = pytest.approx(sum(losses[:3]) / 3)
        assert packet.column("metrics").tolist() == [known["val_loss"], mean]
        (told,) = [event for event in events if isinstance(event, EpochMetrics)]
        assert told.metrics == {"step_loss": mean}


def test_growth_counts_boundaries_and_ramps_over_a_whole_stretch(tmp_path: Path) -> None:
    """With a boundary every three steps a seed is through its lives in half the epochs; alpha
    takes the steps of a whole stretch to rise, though the graft follows a stretch of one step."""
    model = make_host()
    optimizer = adam(model)
    schedule = ((2, "conv", "conv"),)
    settings = {"boundary_every_steps": 3, "schedule": schedule}
    alphas: dict[int, float] = {}
    with attach(model, optimizer, tmp_path / "run", **settings) as esper:
        for _ in range(4):
            for batch in TRAIN:
                esper.after_step(train_step(model, optimizer, batch), batch)
                if SEED in esper.executor.table:
                    alphas[esper.step] = esper.executor.table.get(SEED, "alpha")
            esper.epoch_boundary(evaluate(model))
        assert esper.epoch == 8
        assert esper.executor.table.stage(SEED) > Stage.GRAFTING
        rising = [alpha for alpha in alphas.values() if 0.0 < alpha < 1.0]
        assert len(rising) == 2, "a third, two thirds, whole"
        assert_tracked(model, optimizer)


def test_until_a_graft_the_run_is_that_of_a_loop_without_esper(tmp_path: Path) -> None:
    """Survey, races and boundaries within the epochs leave losses, weights and every random stream
    of the process bit-identical."""
    ends = []
    for grown in (False, True):
        model = make_host()
        optimizer = adam(model)
        if grown:
            settings = {"boundary_every_steps": 3, "param_budget": 10_000}
            with attach(model, optimizer, tmp_path / "run", **settings) as esper:
                losses = train_epoch(model, optimizer, esper)
                losses += train_epoch(model, optimizer, esper, TRAIN[:2])
                assert esper.epoch == 2
                assert esper.growth.flops.trials > 0, "a race was run between two steps"
        else:
            losses = train_epoch(model, optimizer)
            losses += train_epoch(model, optimizer, None, TRAIN[:2])
        ends.append((losses, copy_of(model), streams()))
    (losses, weights, drawn), (ours, grown_weights, our_drawn) = ends
    assert ours == losses
    assert_same({name: grown_weights[name] for name in weights}, weights)
    assert our_drawn == drawn


def test_a_resumed_run_knows_the_metrics_of_the_epoch_before(tmp_path: Path) -> None:
    """The growth state of an epoch's end carries its metrics: the first boundary within the next
    epoch sees them after a resume too."""
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run", policy="hold", boundary_every_steps=3) as esper:
        run(model, optimizer, esper, 1)
        state = growth_state.growth_state(esper)
    with attach(
        model, optimizer, tmp_path / "other", policy="hold", boundary_every_steps=3
    ) as later:
        growth_state.restore_growth(later, state, rng=False)
        assert later.metrics == esper.metrics
        assert set(later.metrics) == {"val_loss"}
        assert later.epoch == esper.epoch == 2


def test_checkpoints_are_committed_at_epochs_ends_only(tmp_path: Path) -> None:
    """A boundary within an epoch writes none; one that ends the epoch does, also when its last
    step had passed it already."""
    model = make_host()
    optimizer = adam(model)
    settings = {
        "boundary_every_steps": 2,
        "policy": "hold",
        "checkpoint": True,
        "async_checkpoints": False,
    }
    folder = tmp_path / "run" / "checkpoints"
    with attach(model, optimizer, tmp_path / "run", **settings) as esper:
        train_epoch(model, optimizer, esper)
        assert esper.epoch == 2
        assert esper.committed_epoch == -1
        esper.epoch_boundary(evaluate(model))
        assert esper.committed_epoch == 2
        assert list(folder.rglob("manifest.json"))


def _start(run_dir: Path, every: int, accumulated: int, num_epochs: int) -> list[Any]:
    """One start of a user's script that resumes; what there is at its end."""
    random.seed(3)
    torch.manual_seed(5)
    model = make_host()
    optimizer = adam(model)
    settings = {"schedule": SCHEDULE, "boundary_every_steps": every, "checkpoint": True}
    with attach(model, optimizer, run_dir, resume=True, **settings) as esper:
        num_steps = len(TRAIN) // accumulated
        while esper.step < num_epochs * num_steps:
            model.train()
            for first in range(0, len(TRAIN), accumulated):
                optimizer.zero_grad()
                for batch in random.sample(TRAIN, len(TRAIN))[first : first + accumulated]:
                    loss = loss_fn(model, batch)
                    loss.backward()
                optimizer.step()
                esper.after_step(loss.detach())
            esper.epoch_boundary(evaluate(model))
        assert_tracked(model, optimizer)
        decided = [event for event in read(run_dir / "journal.bin") if isinstance(event, Decision)]
        stage = esper.executor.table.stage(SEED)
    return [copy_of(model), copy_of_state(optimizer), streams(), decided, stage]


@pytest.mark.parametrize(("every", "accumulated"), [(3, 1), (1, 2)])
def test_a_resumed_loop_ends_as_the_undisturbed_one(
    every: int, accumulated: int, tmp_path: Path
) -> None:
    """A boundary after three of four steps, and after each of two steps that accumulate: stopped
    after its second epoch, with a seed that has begun to grow, the script ends in the same weights,
    moments, streams, decisions and stage."""
    whole = _start(tmp_path / "whole", every, accumulated, 4)
    early = _start(tmp_path / "parts", every, accumulated, 2)
    later = _start(tmp_path / "parts", every, accumulated, 4)
    assert Stage.TRAINING < early[-1] < whole[-1]
    assert_same(later[0], whole[0])
    assert_same_state(later[1], whole[1])
    assert later[2:] == whole[2:]


@pytest.mark.parametrize("every", [0, -3])
def test_a_stretch_has_at_least_one_step(every: int) -> None:
    """The setting is checked where it is given."""
    with pytest.raises(ConfigError, match="boundary_every_steps"):
        load_config({"boundary_every_steps": every})
