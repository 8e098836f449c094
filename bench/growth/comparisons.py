"""What the goals are made of: Esper's runs, and those of another arm paired with them."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

from bench.growth.arms.static import ESPER
from bench.growth.plan import Plan
from bench.growth.results import Growing, Result
from bench.growth.statistics import Estimate, mean
from bench.growth.task import Task
from bench.growth.verdicts import Part, Verdict

Judge = Callable[[Estimate], Verdict]


def runs(plan: Plan, task: Task, *arms: str) -> list[tuple[Result, ...]] | None:
    """The results of these arms, RNG seed by RNG seed; None while one is missing."""
    rows = []
    for rng_seed in plan.rng_seeds(task):
        row = [plan.finished(task, arm, rng_seed) for arm in arms]
        known = tuple(result for result in row if result is not None)
        if len(known) < len(row):
            return None
        rows.append(known)
    return rows


def versus(plan: Plan, task: Task, arm: str, judge: Judge, goal: str) -> Part:
    """Esper against another arm, on the test split."""
    name = f"{task.name}, {arm}"
    rows = runs(plan, task, ESPER, arm)
    if rows is None:
        return Part(name, "missing", None, f"{goal}: runs are missing")
    gain = mean([task.gain(ours.test_metric, other.test_metric) for ours, other in rows])
    text = f"{goal}: {gain} {task.unit}; {_spent(rows)}"
    return Part(name, judge(gain), gain, text)


def _spent(rows: list[tuple[Result, ...]]) -> str:
    """FLOPs and CPU seconds of two arms, in means."""
    means = []
    for arm in zip(*rows, strict=True):
        flops = fmean(result.flops for result in arm)
        cpu_s = fmean(result.cpu_s for result in arm)
        means.append((flops / 1e9, cpu_s))
    (ours, ours_s), (other, other_s) = means
    return f"{ours:,.0f} GFLOP in {ours_s:.0f} s of CPU against {other:,.0f} in {other_s:.0f} s"


def growing(result: Result) -> Growing:
    assert result.growing is not None
    return result.growing


def of_esper(plan: Plan, task: Task, name: str, judge: Callable[[list[Result]], Part]) -> Part:
    rows = runs(plan, task, ESPER)
    if rows is None:
        return Part(f"{task.name}{name}", "missing", None, "runs are missing")
    part = judge([ours for (ours,) in rows])
    return part._replace(id=f"{task.name}{name}")
