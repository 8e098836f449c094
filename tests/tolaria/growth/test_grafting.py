"""Grafting in a run: by every strategy from 0 to 1; a failed graft is told and taken out."""

from __future__ import annotations

import logging
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from kasmina import STRATEGIES
from leyline import ConfigError, SeedReport, Stage
from tests.tolaria.plain_loops import (
    NUM_BATCHES,
    SCHEDULE,
    SEED,
    TRAIN,
    adam,
    attach,
    evaluate,
    faults,
    listen,
    loss_fn,
    make_host,
    run,
    train_epoch,
    train_step,
)
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria.config import EsperConfig, load_config
from tolaria.data.hosts import digits_host
from tolaria.data.splits import digits
from tolaria.growth.grafting import grafting_recipe


def test_the_config_names_the_strategy() -> None:
    """With its options; anything wrong with either is refused before the run begins."""
    config = load_config({"grafting": "momentum", "grafting_options": {"max_velocity": 3}})
    assert grafting_recipe(config).build(10).max_rise == 0.3
    assert grafting_recipe(EsperConfig()).strategy == "linear"
    for wrong in ({"grafting": "fast"}, {"grafting_options": {"max_velocity": 3}}):
        with pytest.raises(ConfigError, match=r"'grafting'|'linear' grafting has no option"):
            load_config(wrong)


def test_adaptive_grafting_can_be_switched_off(caplog: pytest.LogCaptureFixture) -> None:
    """The flag makes it linear and says so; it changes no other strategy."""
    off = {"adaptive_grafting": False}
    with caplog.at_level(logging.INFO, "esper"):
        config = load_config({"grafting": "adaptive", "grafting_options": {"gain_limit": 0.1}})
        assert grafting_recipe(config).strategy == "adaptive"
        assert not caplog.records
        assert grafting_recipe(load_config({"grafting": "adaptive", **off})).strategy == "linear"
    (record,) = caplog.records
    assert "adaptive_grafting is off" in record.getMessage()
    assert grafting_recipe(load_config({"grafting": "stability", **off})).strategy == "stability"


def test_a_failed_graft_is_a_fault_and_goes_at_the_next_boundary(tmp_path: Path) -> None:
    """A gradient that is not finite, three times in a row: one event, then ROLLED_BACK."""
    model = make_host()
    optimizer = adam(model)
    options: dict[str, Any] = {"grafting": "stability", "schedule": SCHEDULE}
    with attach(model, optimizer, tmp_path / "run", **options) as esper:
        run(model, optimizer, esper, 2)
        assert esper.executor.table.stage(SEED) is Stage.GRAFTING
        heard = listen(esper)
        for step in range(NUM_BATCHES):
            loss = train_step(model, optimizer, TRAIN[step])
            if step:
                model.conv.weight.grad.fill_(math.inf)
            esper.after_step(loss)
        assert esper.executor.table.get(SEED, "error_count") == 3
        report = esper.epoch_boundary(evaluate(model))
    (fault,) = faults(heard)
    assert fault.where == f"graft of {SEED}"
    assert "the gradient norm is inf" in fault.what
    (gone,) = [r for r in report.reports if isinstance(r, SeedReport)]
    assert (gone.was, gone.now) == (Stage.GRAFTING, Stage.ROLLED_BACK)
    assert "its graft failed" in gone.cause
    assert not [name for name in model.state_dict() if "esper" in name]


@pytest.mark.parametrize(
    "strategy", [pytest.param("adaptive", marks=pytest.mark.slow), "stability"]
)
def test_a_resumed_ramp_goes_on_alike(strategy: str, tmp_path: Path) -> None:
    """Executor state saved in the middle of a ramp and loaded again changes no later alpha."""
    courses = []
    for name in ("whole", "resumed"):
        model = make_host()
        optimizer = adam(model)
        options: dict[str, Any] = {"grafting": strategy, "ramp_epochs": 3, "schedule": SCHEDULE}
        with attach(model, optimizer, tmp_path / name, **options) as esper:
            torch.manual_seed(1)
            run(model, optimizer, esper, 3)
            if name == "resumed":
                esper.executor.load_state_dict(esper.executor.state_dict())
            course: list[float] = []
            alpha = esper.executor.table
            for _ in range(2):
                train_epoch(
                    model,
                    optimizer,
                    esper,
                    after_step=lambda loss, t=alpha, c=course: c.append(t.get(SEED, "alpha")),
                )
                esper.epoch_boundary(evaluate(model))
        courses.append(course)
    assert courses[0] == courses[1]
    assert courses[0] == sorted(courses[0])


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_digits_grow_by_every_strategy(strategy: str, tmp_path: Path) -> None:
    """Alpha is 0 when the seed is grafted, moves by the strategy's steps, and is 1 when it
    settles, in the table and in the reports; and the network has learnt."""
    torch.manual_seed(0)
    train, seed = digits().train, "2/0"
    batches = list(zip(train.inputs.split(64), train.labels.split(64), strict=True))
    batches, held_out = batches[:-4], batches[-4:]
    model = digits_host()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    with attach(
        model,
        optimizer,
        tmp_path / "run",
        data=(batches, held_out),
        schedule=((2, "2", "conv"),),
        grafting=strategy,
        trial_steps=[30],
        num_epochs=12,
    ) as esper:
        table, alphas, losses = esper.executor.table, [0.0], []
        reports: list[SeedReport] = []
        for _ in range(12):
            for batch in batches:
                loss = train_step(model, optimizer, batch)
                esper.after_step(loss)
                alphas.append(table.get(seed, "alpha") if seed in table else 0.0)
            losses.append(float(sum(loss_fn(model, batch).detach() for batch in held_out)) / 4)
            reports += esper.epoch_boundary({"val_loss": losses[-1]}).reports
        assert table.get(seed, "grafting_strategy") == list(STRATEGIES).index(strategy)
    by_stage = {Stage(report.now): report.alpha for report in reports if not report.refused}
    assert by_stage[Stage.GRAFTING] == 0.0
    assert by_stage[Stage.STABILIZATION] == by_stage[Stage.FOSSILIZED] == 1.0
    moves = [after - before for before, after in pairwise(alphas)]
    assert max(moves) <= 2.001 / len(batches)
    assert strategy == "stability" or min(moves) >= 0.0
    assert alphas[-1] == 1.0
    assert losses[-1] < 0.5 * losses[0]
