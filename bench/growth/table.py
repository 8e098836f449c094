"""The tables: every arm on every task, and the goals."""

from __future__ import annotations

import shutil
from statistics import fmean, stdev
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench.growth.arms import ARMS
from bench.growth.arms.static import ESPER
from bench.growth.plan import Plan
from bench.growth.results import Result
from bench.growth.statistics import Estimate, mean
from bench.growth.task import Task

ARM_HEADINGS: Final = (
    "arm",
    "mean",
    "+-",
    "n",
    "rate",
    "parameters",
    "GFLOP",
    "of it search",
    "CPU s",
    "wall s",
    "s to host's best",
    "worst rise",
    "rollbacks",
    "Esper is better by",
)
GOAL_HEADINGS: Final = ("goal", "", "figure", "95 %", "what was found")
GOALS_NOTE: Final = "a 95 % bootstrap interval of 3 runs covers about 75 %, one of 5 about 84 %"
_COLOURS: Final = {"won": "green", "tied": "yellow", "lost": "red", "missing": "dim"}


def arms(plan: Plan) -> dict[str, dict[str, dict[str, Any]]]:
    """What every arm came to on every task, as plain values; arms without a run are left out."""
    return {
        task.name: {
            arm.name: summary
            for arm in plan.arms
            if (summary := _summary(plan, task, arm.name)) is not None
        }
        for task in plan.tasks
    }


def _summary(plan: Plan, task: Task, arm: str) -> dict[str, Any] | None:
    found = {
        rng_seed: result
        for rng_seed in plan.rng_seeds(task)
        if (result := plan.finished(task, arm, rng_seed)) is not None
    }
    if not found:
        return None
    results = list(found.values())
    summary: dict[str, Any] = {
        "about": ARMS[arm].about,
        "unit": task.unit,
        "learning_rate": plan.rate(task, ARMS[arm]),
        "test": [result.test_metric for result in results],
        "test_mean": fmean(result.test_metric for result in results),
        "test_deviation": _deviation([result.test_metric for result in results]),
        "parameters": fmean(result.num_parameters for result in results),
        "forward_flops": fmean(result.forward_flops for result in results),
        "training_flops": fmean(result.training_flops for result in results),
        "search_flops": fmean(result.search_flops for result in results),
        "cpu_s": fmean(result.cpu_s for result in results),
        "wall_s": fmean(result.wall_s for result in results),
        "to_host_best": _to_host_best(plan, task, found),
        "esper_gain": None if arm == ESPER else _paired(plan, task, found),
    }
    grown = [result.growing for result in results if result.growing is not None]
    if grown:
        summary["worst_rise"] = max(growing.worst_rise for growing in grown)
        summary["rollbacks"] = sum(growing.num_rollbacks for growing in grown)
        summary["structures"] = [growing.structure for growing in grown]
    return summary


def _paired(plan: Plan, task: Task, found: dict[int, Result]) -> Estimate | None:
    """By how much Esper is better on the test split, over the RNG seeds that both have."""
    gains = [
        task.gain(ours.test_metric, other.test_metric)
        for rng_seed, other in found.items()
        if (ours := plan.finished(task, ESPER, rng_seed)) is not None
    ]
    return mean(gains) if gains else None


def _to_host_best(plan: Plan, task: Task, found: dict[int, Result]) -> dict[str, float] | None:
    """Mean FLOPs and CPU seconds to the best validation of the host alone, where all arrive."""
    arrivals = []
    for rng_seed, result in found.items():
        host = plan.finished(task, "host", rng_seed)
        if host is None:
            return None
        best = max(task.gain(point.val_metric, 0.0) for point in host.history)
        there = [p for p in result.history if task.gain(p.val_metric, 0.0) >= best]
        if not there:
            return None
        arrivals.append(there[0])
    return {
        "flops": fmean(point.flops for point in arrivals),
        "cpu_s": fmean(point.cpu_s for point in arrivals),
    }


def _deviation(values: list[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


# --- on the terminal --------------------------------------------------------------------------


def console() -> Console:
    """Wide enough for the tables, also in a log."""
    return Console(highlight=False, width=max(150, shutil.get_terminal_size().columns))


def show_arms(out: Console, summaries: dict[str, dict[str, dict[str, Any]]]) -> None:
    """One table for each task."""
    for task, of_arms in summaries.items():
        unit = next(iter(of_arms.values()))["unit"] if of_arms else ""
        title = f"{task}, test split, {unit}"
        table = Table(title=title, box=None, title_justify="left", pad_edge=False)
        for heading in ARM_HEADINGS:
            is_text = heading in (ARM_HEADINGS[0], ARM_HEADINGS[-1])
            table.add_column(heading, justify="left" if is_text else "right")
        for summary in of_arms.values():
            table.add_row(*arm_cells(summary))
        out.print(table)
        out.print()


def arm_cells(summary: dict[str, Any]) -> list[str]:
    """What stands below ARM_HEADINGS."""
    flops = summary["training_flops"] + summary["search_flops"]
    arrival = summary["to_host_best"]
    rise = f"{summary['worst_rise']:+.2%}" if "worst_rise" in summary else ""
    return [
        summary["about"],
        f"{summary['test_mean']:.2f}",
        f"{summary['test_deviation']:.2f}",
        str(len(summary["test"])),
        f"{summary['learning_rate']:g}",
        f"{summary['parameters']:,.0f}",
        f"{flops / 1e9:,.0f}",
        f"{summary['search_flops'] / max(flops, 1):.0%}",
        f"{summary['cpu_s']:.0f}",
        f"{summary['wall_s']:.0f}",
        f"{arrival['cpu_s']:.1f}" if arrival else "never",
        rise,
        str(summary.get("rollbacks", "")),
        str(summary["esper_gain"] or ""),
    ]


def show_goals(out: Console, goals: list[dict[str, Any]]) -> None:
    """Every part of every goal; the whole goals stand out."""
    title = f"goals; {GOALS_NOTE}"
    table = Table(title=title, box=None, title_justify="left", pad_edge=False)
    for heading in GOAL_HEADINGS:
        table.add_column(heading)
    for goal in goals:
        number, verdict, *others = goal_cells(goal)
        style = _COLOURS[verdict]
        whole = number if "/" in number else f"[bold]{number}[/]"
        table.add_row(whole, f"[{style}]{verdict}[/]", *others)
    out.print(table)


def goal_cells(goal: dict[str, Any]) -> list[str]:
    """What stands below GOAL_HEADINGS."""
    low, high = goal["interval"] or (None, None)
    return [
        goal["id"],
        goal["verdict"],
        "" if goal["figure"] is None else f"{goal['figure']:.3g}",
        "" if low is None else f"{low:.3g} to {high:.3g}",
        goal["text"],
    ]
