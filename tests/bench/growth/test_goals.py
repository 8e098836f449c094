"""The goals say what the runs say: lost is lost, and nothing is said of what was not run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from bench.growth.arms import ARMS
from bench.growth.goals import goals
from bench.growth.plan import Plan
from bench.growth.results import Result
from bench.growth.store import Job, Store
from tests.bench.growth.test_plan import NOTHING_GROWN
from tests.bench.growth.tiny import result, tiny_task


def reported(tmp_path: Path, task_name: str, metrics: dict[str, float], **grown: Any) -> Any:
    """The goals by id after every run of these arms has come to its metric, plus its RNG seed.

    Args:
        grown: fields of Esper's results, or of what has grown in them, that are otherwise.
    """
    task, store = replace(tiny_task(), name=task_name), Store(tmp_path)
    plan = Plan([task], metrics, None, store)

    def found(job: Job) -> Result:
        """Every RNG seed is a point better than the one before, in every arm."""
        of_arm = result(metrics[job.arm] + job.rng_seed)
        if job.arm != "esper":
            return of_arm
        inner = {name: value for name, value in grown.items() if hasattr(NOTHING_GROWN, name)}
        outer = {name: value for name, value in grown.items() if name not in inner}
        growing = msgspec.structs.replace(NOTHING_GROWN, **inner)
        return msgspec.structs.replace(of_arm, growing=growing, **outer)

    while ready := plan.survey().ready:
        for job in ready:
            store.put(job, found(job), "a machine")
    return {goal["id"]: goal for goal in goals(plan)}


def verdict(found: Any, goal: str) -> str:
    """Of one goal."""
    return found[goal]["verdict"]


def test_gains_are_paired(tmp_path: Path) -> None:
    """RNG seeds differ by a point and the arms by half of one: the interval is that half."""
    found = reported(tmp_path, "tiny", {"esper": 50.5, "random_search": 50.0})
    assert verdict(found, "3") == "won"
    assert found["3/tiny, random_search"]["figure"] == 0.5
    assert found["3/tiny, random_search"]["interval"] == [0.5, 0.5]


def test_a_lost_goal_is_lost(tmp_path: Path) -> None:
    """Worse than a random search; a tie is one only when the runs do not tell."""
    found = reported(tmp_path / "worse", "tiny", {"esper": 49.5, "random_search": 50.0})
    assert verdict(found, "3") == "lost"
    found = reported(tmp_path / "same", "tiny", {"esper": 50.0, "random_search": 50.0})
    assert verdict(found, "3") == "tied"


def test_what_was_not_run_is_missing(tmp_path: Path) -> None:
    """No verdict without the runs that it needs, whatever the others say."""
    found = reported(tmp_path, "tiny", {"esper": 50.0, "host": 40.0})
    assert verdict(found, "8") == "won"
    assert verdict(found, "3") == "missing"
    assert verdict(found, "6") == "missing"


def test_convolutions_must_be_chosen_every_time(tmp_path: Path) -> None:
    """And the wider host be beaten by 20 points."""
    metrics = {"esper": 95.0, "widened_flops": 75.0, "hand_flops": 95.9}
    found = reported(tmp_path / "chosen", "mnist1d", metrics)
    assert [verdict(found, goal) for goal in found if goal.startswith("2")] == ["won"] * 4
    found = reported(tmp_path / "not", "mnist1d", metrics, structure=[("0", "low_rank")])
    assert verdict(found, "2/mnist1d, choice") == "lost"
    assert verdict(found, "2") == "lost"
    found = reported(tmp_path / "less", "mnist1d", metrics | {"widened_flops": 75.1})
    assert verdict(found, "2/mnist1d, widened_flops") == "lost"


def test_search_is_a_third_at_most(tmp_path: Path) -> None:
    """Of all FLOPs, those of counterfactuals and rejected candidates among them."""
    for searched, expected in ((500, "won"), (501, "lost")):
        found = reported(tmp_path / str(searched), "tiny", {"esper": 50.0}, search_flops=searched)
        assert verdict(found, "5") == expected


def test_a_graft_may_not_harm(tmp_path: Path) -> None:
    """2 % of validation loss, every parameter tracked, 5 % of the time: one miss loses."""
    kept = {"worst_rise": 0.02, "num_untracked": 0, "overhead": 0.05}
    assert verdict(reported(tmp_path / "kept", "tiny", {"esper": 50.0}, **kept), "7") == "won"
    for name, value in (("worst_rise", 0.021), ("num_untracked", 1), ("overhead", 0.06)):
        found = reported(tmp_path / name, "tiny", {"esper": 50.0}, **(kept | {name: value}))
        assert verdict(found, "7") == "lost", name


def test_fewer_parameters_than_the_hand_picked_network(tmp_path: Path) -> None:
    """Two thirds at most, however good it is."""
    metrics = {"esper": 60.0, "hand": 50.0, "hand_flops": 50.0}
    for size, expected in ((6, "won"), (7, "lost")):
        found = reported(tmp_path / str(size), "fashion", metrics, num_parameters=size)
        assert verdict(found, "4/fashion, hand_flops") == "won"
        assert verdict(found, "4/fashion, parameters") == expected
        assert verdict(found, "4") == expected


def test_every_arm_has_a_name_of_its_own() -> None:
    """By which its runs are kept, and something to say of it in a table."""
    assert all(arm.name == name and arm.about for name, arm in ARMS.items())
    assert len({arm.about for arm in ARMS.values()}) == len(ARMS)
