"""The results as a page of Markdown, beside results.json and the plots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from bench.growth.table import ARM_HEADINGS, GOAL_HEADINGS, GOALS_NOTE, arm_cells, goal_cells

_VERDICTS: Final = (
    "Won: the figure reaches the goal, and the whole interval shows a gain, or lies within the "
    "limit. Lost: the interval says that it does not. Tied: the runs do not tell. A whole goal has "
    "the verdict of its worst part."
)
_RATES: Final = "Arms of Esper, and random places, take the one that suits Esper."


def page(results: dict[str, Any]) -> str:
    """What results.json holds, as tables: the goals, then every arm of every task."""
    command = f"python -m bench.growth{' --short' if results['short'] else ''}"
    made_by = f"Written by `{command}`; do not edit. {results['machine']}."
    parts = [
        "# What growing is worth",
        f"{made_by} Esper: {results['algorithm']}.",
        "## Goals",
        f"{GOALS_NOTE[0].upper()}{GOALS_NOTE[1:]}. {_VERDICTS}",
        _table(GOAL_HEADINGS, map(goal_cells, results["goals"])),
    ]
    for task, of_arms in results["arms"].items():
        if of_arms:
            unit = next(iter(of_arms.values()))["unit"]
            absent = (f"No {arm}: {why}." for arm, why in results["absent"][task].items())
            parts += [
                f"## {task}, test split, {unit}",
                _table(ARM_HEADINGS, map(arm_cells, of_arms.values())),
                " ".join([f"Learning rates tried: {results['rates'][task]}. {_RATES}", *absent]),
                f"![what each arm reached for its FLOPs, and what trials told]({task}.png)",
            ]
    return "\n\n".join(parts) + "\n"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
