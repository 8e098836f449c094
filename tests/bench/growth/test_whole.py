"""A tiny benchmark from end to end: real runs, the tables and the goals."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from bench.growth import realised, table
from bench.growth.arms import ARMS
from bench.growth.goals import gains, goals
from bench.growth.page import page
from bench.growth.plan import Plan
from bench.growth.plots import plots
from bench.growth.store import Store
from tests.bench.growth.tiny import tiny_task

SPANS = 12


@pytest.mark.slow
def test_a_tiny_benchmark(tmp_path: Path) -> None:
    """Every run is done once, Esper's FLOPs bound those of the search, and all is reported."""
    torch.set_num_threads(1)
    task, store = tiny_task(SPANS, (1e-2,)), Store(tmp_path)
    arms = [name for name, arm in ARMS.items() if arm.refusal(task.name) is None]
    plan = Plan([task], arms, None, store)
    while ready := plan.survey().ready:
        store.put(ready[0], ARMS[ready[0].arm].run(task, ready[0]), "a machine")
    assert plan.survey().num_waiting == 0

    for rng_seed in plan.rng_seeds(task):
        esper = plan.finished(task, "esper", rng_seed)
        search = plan.finished(task, "random_search", rng_seed)
        host = plan.finished(task, "host", rng_seed)
        longer = plan.finished(task, "host_flops", rng_seed)
        assert esper is not None
        assert esper.growing is not None
        assert search is not None
        assert host is not None
        assert longer is not None
        assert esper.growing.num_untracked == 0
        assert host.flops == SPANS * task.steps_per_span * task.step_flops(task.host())
        assert search.flops <= esper.flops
        assert longer.flops == pytest.approx(
            esper.flops, rel=0.5 * host.flops / SPANS / esper.flops
        )
        assert [point.flops for point in esper.history][-1] == esper.flops

    out = io.StringIO()
    summaries, found = table.arms(plan), goals(plan)
    console = Console(file=out, width=200)
    table.show_arms(console, summaries)
    table.show_goals(console, found)
    results = {"machine": "a machine", "algorithm": "ours", "short": True}
    results |= {"arms": summaries, "goals": found, "rates": {"tiny": "0.1"}}
    results["absent"] = {"tiny": {"gromo": "it is away"}}
    written = page(json.loads(json.dumps(results)))
    assert "No gromo: it is away." in written
    for arm in plan.arms:
        assert arm.about in out.getvalue()
        assert f"\n| {arm.about} | " in written
    for goal in found:
        assert f"\n| {goal['id']} | {goal['verdict']} | " in written
    assert plots(plan, summaries, tmp_path) == f"plots: tiny.png in {tmp_path}"
    assert (tmp_path / "tiny.png").read_bytes().startswith(b"\x89PNG")
    verdicts = {goal["id"]: goal["verdict"] for goal in found}
    assert verdicts["7/tiny, optimizer"] == "won"
    assert verdicts["3/tiny, random_search"] in ("won", "tied", "lost")
    assert verdicts["6"] == "missing"


@pytest.mark.slow
def test_what_a_trial_promised_is_set_against_what_came(tmp_path: Path) -> None:
    """One run for each candidate, all the same until it is planted, and a control."""
    torch.set_num_threads(1)
    task, store = tiny_task(SPANS), Store(tmp_path)
    jobs = realised.jobs(task)[:4]
    for job in jobs:
        store.put(job, realised.run(task, job), "a machine")
    plan = Plan([task], [realised.NAME], None, store)
    (_, control), *others = plan.realised(task)
    fork = jobs[1].settings["esper"]["schedule"][0][0]
    for _, grown in others:
        assert grown.history[fork - 1].val_loss == control.history[fork - 1].val_loss
        assert grown.val_loss != control.val_loss
        assert len(grown.history) == len(control.history)
    assert [size for _, _, size in gains(plan, task)] == [
        grown.num_parameters - control.num_parameters for _, grown in others
    ]
