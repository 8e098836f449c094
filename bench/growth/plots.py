"""Plots of the results: what each arm reached for its FLOPs, and what trials told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.growth.arms.static import ESPER
from bench.growth.goals import gains
from bench.growth.plan import Plan
from bench.growth.task import Task


def plots(plan: Plan, summaries: dict[str, dict[str, dict[str, Any]]], directory: Path) -> str:
    """Write one PNG for each task into a directory; returns in a line which."""
    from matplotlib.figure import Figure  # slow to import, and needed at the end alone

    written = []
    for task in plan.tasks:
        if summaries[task.name]:
            figure = Figure(figsize=(13, 5), layout="constrained")
            left, right = figure.subplots(1, 2, width_ratios=(3, 2))
            _arms(left, task, summaries[task.name])
            _trials(right, plan, task)
            written.append(f"{task.name}.png")
            figure.savefig(directory / written[-1], dpi=110)
    return f"plots: {', '.join(written) or 'none'} in {directory}"


def _arms(axes: Any, task: Task, of_arms: dict[str, dict[str, Any]]) -> None:
    """A line for each arm, the best above: every run, the mean, and the FLOPs that it took."""
    order = sorted(of_arms, key=lambda name: task.gain(of_arms[name]["test_mean"], 0.0))
    for line, name in enumerate(order):
        summary = of_arms[name]
        colour = "tab:red" if name == ESPER else "tab:blue"
        axes.scatter(summary["test"], [line] * len(summary["test"]), color=colour, alpha=0.4, s=14)
        axes.plot(summary["test_mean"], line, marker="|", markersize=14, color=colour)
    gflops = [(of_arms[n]["training_flops"] + of_arms[n]["search_flops"]) / 1e9 for n in order]
    axes.set_yticks(range(len(order)), [of_arms[name]["about"] for name in order])
    beside = axes.secondary_yaxis("right")
    beside.set_yticks(range(len(order)), [f"{flops:,.0f} GFLOP" for flops in gflops])
    for ticks in (axes, beside):
        ticks.tick_params(axis="y", length=0, labelsize=8)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel(f"test split, {task.unit}; search is in the FLOPs")
    axes.set_title(task.name)


def _trials(axes: Any, plan: Plan, task: Task) -> None:
    pairs = gains(plan, task)
    axes.scatter([trial for trial, _, _ in pairs], [gain for _, gain, _ in pairs])
    axes.set_xlabel("held-out gain of the trial, nats")
    axes.set_ylabel("realised gain on validation, nats")
    axes.set_title(f"{len(pairs)} grafts from one state")
