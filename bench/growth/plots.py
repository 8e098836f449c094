"""Plots of the results, if matplotlib is installed: what each arm reached for its FLOPs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.growth.goals import gains
from bench.growth.plan import Plan
from bench.growth.task import Task


def plots(plan: Plan, summaries: dict[str, dict[str, dict[str, Any]]], directory: Path) -> str:
    """Write one PNG for each task into a directory.

    Returns:
        What was written, or why nothing was, in a line.
    """
    try:
        from matplotlib.figure import Figure  # no dependency of Esper, and slow to import
    except ImportError:
        return "no plots: matplotlib is not installed; pip install matplotlib, then --report"
    written = []
    for task in plan.tasks:
        if summaries[task.name]:
            figure = Figure(figsize=(11, 4.5), layout="constrained")
            left, right = figure.subplots(1, 2)
            _arms(left, task, summaries[task.name])
            _trials(right, plan, task)
            written.append(f"{task.name}.png")
            figure.savefig(directory / written[-1], dpi=110)
    return f"plots: {', '.join(written) or 'none'} in {directory}"


def _arms(axes: Any, task: Task, of_arms: dict[str, dict[str, Any]]) -> None:
    for name, summary in of_arms.items():
        gflops = (summary["training_flops"] + summary["search_flops"]) / 1e9
        axes.errorbar(gflops, summary["test_mean"], summary["test_deviation"], marker="o")
        axes.annotate(name, (gflops, summary["test_mean"]), fontsize=7)
    axes.set_xscale("log")
    axes.set_xlabel("GFLOP, search included")
    axes.set_ylabel(f"test split, {task.unit}")
    axes.set_title(task.name)


def _trials(axes: Any, plan: Plan, task: Task) -> None:
    pairs = gains(plan, task)
    axes.scatter([trial for trial, _, _ in pairs], [gain for _, gain, _ in pairs])
    axes.set_xlabel("held-out gain of the trial, nats")
    axes.set_ylabel("realised gain on validation, nats")
    axes.set_title(f"{len(pairs)} grafts from one state")
