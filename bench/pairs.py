"""Paired timings: ours and a peer by turns in one process, and the peer against itself."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table

Action = Callable[[], object]


@dataclass(frozen=True)
class Comparison:
    """Medians over interleaved pairs. Only the ratios mean anything on a shared machine."""

    ours_us: float
    peer_us: float
    ratio: float
    """Ours over the peer."""
    same: tuple[float, float]
    """The peer over itself: 10th and 90th percentile of the ratio, the noise band."""


@dataclass(frozen=True)
class Row:
    """One claim with its figures, as they are printed."""

    claim: str
    goal: str
    found: str
    beside: str
    """The limit or peer of the same run, and the ratio to it."""
    met: bool


def once_us(action: Action, repeats: int) -> float:
    """Mean time of one call, in us, over `repeats` calls in a row."""
    start_ns = time.perf_counter_ns()
    for _ in range(repeats):
        action()
    return (time.perf_counter_ns() - start_ns) / repeats / 1e3


def compare(ours: Action, peer: Action, *, num_pairs: int = 21, repeats: int = 1) -> Comparison:
    """Time ours between two runs of the peer, again and again.

    Args:
        repeats: calls in a row that make one timing; choose it so that one takes a millisecond.
    """
    ours(), peer()
    actions = (peer, ours, peer)
    rows = [tuple(once_us(action, repeats) for action in actions) for _ in range(num_pairs)]
    same = sorted(after / before for before, _, after in rows)
    return Comparison(
        ours_us=statistics.median(mine for _, mine, _ in rows),
        peer_us=statistics.median((before + after) / 2 for before, _, after in rows),
        ratio=statistics.median(2 * mine / (before + after) for before, mine, after in rows),
        same=(same[len(same) // 10], same[-1 - len(same) // 10]),
    )


def show(title: str, rows: Callable[[], list[Row]]) -> None:
    """Measure on one thread, and print the table of a bench."""
    torch.set_num_threads(1)
    console = Console(highlight=False, width=max(140, shutil.get_terminal_size().columns))
    table = Table(title=title, box=None, title_justify="left", pad_edge=False)
    for heading in ("claim", "goal", "found", "beside it, in the same run", ""):
        table.add_column(heading)
    for row in rows():
        verdict = "[green]met[/]" if row.met else "[red]missed[/]"
        table.add_row(row.claim, row.goal, row.found, row.beside, verdict)
    console.print(table)
