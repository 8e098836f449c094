"""The orchestrator in a hand-written loop: growth from the first step to the report."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from kasmina.slots.slot import attached_seeds
from leyline import Stage
from tests.tolaria.plain_loops import (
    HELD_OUT,
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
    loss_fn,
    make_host,
    run,
    stages,
    streams,
    train_epoch,
)
from tests.tolaria.plain_loops import one_thread as one_thread

UNTOLD: dict[str, Any] = {"loss_fn": None, "data": None}


def test_a_planted_seed_lives_its_whole_life(tmp_path: Path) -> None:
    """By schedule it is proven, tried, grafted, blended to alpha 1, settled, measured, tuned and
    made permanent; after every boundary the optimizer tracks what can be trained, nothing else."""
    model = make_host()
    optimizer = adam(model)
    lived: list[tuple[int, int]] = []
    with attach(model, optimizer, tmp_path / "run", schedule=SCHEDULE) as esper:
        for _ in range(8):
            (report,) = run(model, optimizer, esper, 1)
            lived += stages(report)
            assert_tracked(model, optimizer)
    order = [0, 1, 2, 3, 4, 5, 6, 7]
    assert lived == list(pairwise(order))
    (life,) = esper.report()["seeds"]
    assert life["history"] == [Stage(number).name for number in order]
    assert life["alpha"] == 1.0
    assert life["trial_gain"] is not None
    assert life["counterfactual_gain"] is not None
    assert len(esper.report()["field_reports"]) == 1


def test_the_host_is_bit_identical_until_the_first_graft(tmp_path: Path) -> None:
    """Losses, weights, buffers, moments and random streams of the first two epochs, trials and
    all, are those of a run without Esper."""
    ends = []
    for name in ("plain", "grown"):
        model = make_host()
        optimizer = adam(model)
        esper = None
        if name == "grown":
            esper = attach(model, optimizer, tmp_path / name, schedule=SCHEDULE)
        torch.manual_seed(3)
        losses = []
        for epoch in (1, 2):
            losses += train_epoch(model, optimizer, esper)
            values = evaluate(model)
            end = losses, copy_of(model), copy_of_state(optimizer), streams()
            if esper is not None:
                esper.epoch_boundary(values)
                assert esper.executor.table.stage(SEED) is Stage(epoch + 1)
        if esper is not None:
            assert esper.executor.table.get(SEED, "trial_steps") == 6
            esper.close()
        ends.append(end)
    (plain_losses, plain, plain_state, plain_streams), (losses, grown, state, ours) = ends
    assert losses == plain_losses
    assert_same(grown, plain)
    assert_same_state(state, plain_state)
    assert ours == plain_streams


@pytest.mark.parametrize("policy", ["hold", "heuristic"])
def test_without_a_graft_the_whole_run_is_bit_identical(policy: str, tmp_path: Path) -> None:
    """With growth off, or with races that nobody wins, five epochs end with the same bits."""
    ends = []
    for name in ("plain", policy):
        model = make_host()
        optimizer = adam(model)
        losses = []
        if name == "plain":
            for _ in range(5):
                losses += train_epoch(model, optimizer)
                evaluate(model)
        else:
            # A trial of one tiny step finds nothing above its noise.
            settings = {"policy": policy, "trial_steps": [1], "trial_learning_rate": 1e-9}
            with attach(model, optimizer, tmp_path / name, **settings) as esper:
                for _ in range(5):
                    losses += train_epoch(model, optimizer, esper)
                    esper.epoch_boundary(evaluate(model))
                raced = any(d["scores"] for d in esper.report()["decisions"])
                assert raced is (policy == "heuristic")
        ends.append((losses, copy_of(model), copy_of_state(optimizer), streams()))
    assert ends[0][0] == ends[1][0]
    assert_same(ends[0][1], ends[1][1])
    assert_same_state(ends[0][2], ends[1][2])
    assert ends[0][3] == ends[1][3]


def test_nothing_in_a_boundary_moves_a_random_stream(tmp_path: Path) -> None:
    """Survey, proof, race, counterfactual, graft, snapshot and checkpoint leave every stream of
    the process, and that of the run's own shuffling loader, where they were."""
    model = make_host()
    optimizer = adam(model)
    generator = torch.Generator().manual_seed(8)
    images, labels = (torch.cat(parts) for parts in zip(*TRAIN, strict=True))
    loader = DataLoader(
        TensorDataset(images, labels), batch_size=16, shuffle=True, generator=generator
    )
    settings = {"data": (loader, HELD_OUT), "schedule": SCHEDULE, "checkpoint": True}
    with attach(model, optimizer, tmp_path / "run", **settings) as esper:
        for _ in range(7):
            model.train()
            for batch in loader:
                optimizer.zero_grad()
                loss = loss_fn(model, batch)
                loss.backward()
                optimizer.step()
                esper.after_step(loss)
            values = evaluate(model)
            before = [*streams(), bytes(generator.get_state().tolist())]
            esper.epoch_boundary(values)
            assert [*streams(), bytes(generator.get_state().tolist())] == before
        assert esper.executor.table.stage(SEED) is Stage.FOSSILIZED


@pytest.mark.parametrize("settings", [{"schedule": SCHEDULE}, {"policy": "heuristic"}], ids=str)
def test_the_same_run_gives_the_same_report(settings: dict[str, Any], tmp_path: Path) -> None:
    """Two runs of one command differ in their milliseconds only: the same seeds, scores, gains,
    decisions and metrics, and the same weights."""
    told, weights = [], []
    for name in ("a", "b"):
        model = make_host()
        optimizer = adam(model)
        run_dir = tmp_path / name / "run"
        run_dir.parent.mkdir()
        with attach(model, optimizer, run_dir, **settings) as esper:
            run(model, optimizer, esper, 7)
        report = esper.report()
        del report["boundaries"], report["latency_alerts"], report["bus_report"]
        told.append(report)
        weights.append(copy_of(model))
    assert told[0] == told[1]
    assert any(decision["commands"] for decision in told[0]["decisions"])
    assert_same(*weights)


@pytest.mark.slow
def test_the_heuristic_grows_what_is_too_small_and_it_pays(tmp_path: Path) -> None:
    """On a task that one convolution of four channels cannot solve, a race is won, the winner is
    grafted, and the held-out loss ends below that of the host alone."""
    ends = {}
    for policy in ("hold", "heuristic"):
        model = make_host()
        optimizer = adam(model)
        settings = {"policy": policy, "num_epochs": 16, "trial_steps": [20, 60], "veto": True}
        with attach(model, optimizer, tmp_path / policy, **settings) as esper:
            run(model, optimizer, esper, 16)
            ends[policy] = evaluate(model)["val_loss"]
            assert bool(esper.executor.live_seeds()) is (policy == "heuristic")
            assert_tracked(model, optimizer)
    assert ends["heuristic"] < 0.9 * ends["hold"]


@pytest.mark.parametrize("missing", ["loss_fn", "data"])
def test_without_what_a_trial_needs_a_seed_is_grafted_from_zero_and_says_so(
    missing: str, tmp_path: Path
) -> None:
    """The trial is skipped by name, the graft starts as the identity, and the seed stays in
    EVALUATING: kept, unproven."""
    model = make_host()
    optimizer = adam(model)
    settings = {missing: None, "example": (TRAIN[0][0],), "schedule": SCHEDULE}
    with attach(model, optimizer, tmp_path / "run", **settings) as esper:
        assert esper.executor.trials_waived is not None
        assert missing in esper.executor.trials_waived
        reports = run(model, optimizer, esper, 2)
        model.eval()
        (seed,) = (held[2] for held in attached_seeds(model).values())
        images = TRAIN[0][0]
        alone = model(images)
        seed.blend(1.0)
        assert torch.equal(model(images), alone)
        seed.blend(0.0)
        run(model, optimizer, esper, 6)
        assert esper.executor.table.stage(SEED) is Stage.EVALUATING
        assert math.isnan(esper.executor.table.get(SEED, "trial_gain"))
    (command,) = reports[1].decision.commands
    assert "no trial is possible here" in command.cause


def test_the_heuristic_without_trials_never_grows(tmp_path: Path) -> None:
    """A policy that rests on trials says that none is possible, and leaves the host alone."""
    model = make_host()
    optimizer = adam(model)
    settings = {**UNTOLD, "example": TRAIN[0][0], "policy": "heuristic"}
    with attach(model, optimizer, tmp_path / "run", **settings) as esper:
        reports = run(model, optimizer, esper, 4)
    assert not attached_seeds(model)
    assert "no trial is possible here" in reports[-1].decision.cause


def test_a_loss_that_fails_on_a_copy_gives_trials_up_by_name(tmp_path: Path) -> None:
    """A loss_fn that only works on the live model costs the trials, not the run."""
    model = make_host()
    optimizer = adam(model)

    def picky(module: nn.Module, batch: Any) -> Tensor:
        if module is not model:
            raise RuntimeError("not my model")
        return loss_fn(module, batch)

    for number, example in enumerate((None, (TRAIN[0][0],))):
        run_dir = tmp_path / str(number)
        settings = {"loss_fn": picky, "example": example, "policy": "heuristic"}
        with attach(model, optimizer, run_dir, **settings) as esper:
            run(model, optimizer, esper, 4)
            assert "not my model" in str(esper.executor.trials_waived)
