"""What is to be done follows from what is done: interrupted runs go on, changed ones begin anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.growth.arms import ARMS, esper
from bench.growth.plan import Plan
from bench.growth.results import Graft, Growing, Result
from bench.growth.store import Job, Store
from bench.growth.task import TUNING_RNG_SEED
from tests.bench.growth.tiny import result, tiny_task

NOTHING_GROWN = Growing(
    grafts=[Graft(1, "0", "conv", 68, 0.1)],
    structure=[("0", "conv")],
    worst_rise=0.0,
    worst_rise_of_cull=0.0,
    worst_rise_in_ramp=0.0,
    num_rollbacks=0,
    num_untracked=0,
    boundary_ms={},
    overhead=0.0,
    causes=[],
)


def made_up(job: Job) -> Result:
    """Better on validation the lower the learning rate, and worse on test; 10 ** 6 FLOPs."""
    rate = job.settings["learning_rate"]
    found = msgspec.structs.replace(result(flops=10**6), val_metric=1 / rate, test_metric=rate)
    grows = ARMS[job.arm].run.__qualname__.startswith("Esper")
    return msgspec.structs.replace(found, growing=NOTHING_GROWN) if grows else found


def do_ready(plan: Plan, store: Store) -> list[Job]:
    """Do every run that can be done now."""
    ready = plan.survey().ready
    for job in ready:
        store.put(job, made_up(job), "a machine")
    return ready


def plan_of(store: Store, *arms: str) -> Plan:
    """A plan of arms on the tiny task."""
    return Plan([tiny_task()], arms, None, store)


def test_rates_are_chosen_on_validation_with_another_rng_seed(tmp_path: Path) -> None:
    """First every rate with RNG seed 99; then the best on validation, here the worst on test."""
    store = Store(tmp_path)
    plan = plan_of(store, "host")
    tuning = do_ready(plan, store)
    assert [job.rng_seed for job in tuning] == [TUNING_RNG_SEED] * 2
    runs = do_ready(plan, store)
    assert [(job.rng_seed, job.settings["learning_rate"]) for job in runs] == [(0, 0.01), (1, 0.01)]
    assert plan.survey().ready == []


def test_an_interrupted_benchmark_goes_on(tmp_path: Path) -> None:
    """What one process has done another does not do again, and what is missing it does."""
    store = Store(tmp_path)
    do_ready(plan_of(store, "host"), store)
    first, second = plan_of(store, "host").survey().ready
    store.put(first, made_up(first), "a machine")
    assert plan_of(Store(tmp_path), "host").survey().ready == [second]


def test_an_arm_waits_for_what_it_rests_on(tmp_path: Path) -> None:
    """The network that Esper finds cannot be trained before it is found; then it is known."""
    store = Store(tmp_path)
    plan = plan_of(store, "found")
    assert {job.arm for job in do_ready(plan, store)} == {"esper"}
    assert plan.survey().num_waiting > 0
    while do_ready(plan, store):
        pass
    survey = plan.survey()
    assert survey.num_waiting == 0
    nets = [job.settings["net"] for job, _ in survey.done if job.arm == "found"]
    assert nets == [{"kind": "planted", "plan": [["0", "conv"]]}] * 4


def test_equal_flops_are_those_of_the_paired_run(tmp_path: Path) -> None:
    """As many spans as the FLOPs of the grown run buy, search included."""
    store = Store(tmp_path)
    plan, task = plan_of(store, "host_flops"), tiny_task()
    while do_ready(plan, store):
        pass
    of_a_span = task.steps_per_span * task.step_flops(task.host())
    spans = {job.settings["num_spans"] for job, _ in plan.survey().done if job.arm == "host_flops"}
    assert spans == {round(10**6 / of_a_span)}


def test_a_new_algorithm_does_the_runs_of_esper_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no others: static networks do not know of it."""
    store = Store(tmp_path)
    plan = plan_of(store, "host", "esper", "no_veto")
    while do_ready(plan, store):
        pass
    assert plan_of(store, "host", "esper", "no_veto").survey().ready == []
    monkeypatch.setattr(esper, "ALGORITHM", "another")
    again = plan_of(store, "host", "esper", "no_veto")
    assert {job.arm for job in do_ready(again, store)} == {"esper"}
    assert {job.arm for job in again.survey().ready} == {"esper", "no_veto"}


@pytest.mark.parametrize("change", [{"data": "other"}, {"num_spans": 4}, {"batch_size": 4}])
def test_a_changed_task_does_everything_again(tmp_path: Path, change: dict[str, Any]) -> None:
    """Whatever of it changes."""
    store = Store(tmp_path)
    do_ready(plan_of(store, "host"), store)
    changed = Plan([replace(tiny_task(), **change)], ["host"], None, store)
    assert [job.rng_seed for job in changed.survey().ready] == [TUNING_RNG_SEED] * 2
