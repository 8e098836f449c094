"""The table as a terminal shows it, and as a page."""

from __future__ import annotations

import shutil
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.harness.row import Row, Target, Verdict

_LEAST_WIDTH = 150
_STYLES = {Verdict.MET: "green", Verdict.MISSED: "red", Verdict.NOT_MEASURED: "yellow"}
HEADINGS = ("claim", "target", "p50", "p95", "p99", "beside it", "ratio", "itself", "goal", "")


def show(title: str, rows: Iterable[Row]) -> None:
    """Print one bench."""
    console = Console(highlight=False, width=max(_LEAST_WIDTH, shutil.get_terminal_size().columns))
    table = Table(title=title, box=None, title_justify="left", pad_edge=False)
    for number, heading in enumerate(HEADINGS):
        is_figure = heading in ("p50", "p95", "p99", "ratio")
        table.add_column(
            heading, justify="right" if is_figure else "left", no_wrap=number not in (0, 5)
        )
    before = ""
    for row in rows:
        claim, *cells, verdict = cells_of(row)
        shown = '"' if claim == before else claim
        table.add_row(shown, *cells, Text(verdict, _STYLES.get(row.verdict, "")))
        before = claim
    console.print(table)


def cells_of(row: Row) -> tuple[str, ...]:
    """A row as words, in the order of the headings."""
    ours, peer = row.ours, row.peer
    tail = ("", "", "") if ours is None else (ours.p50, ours.p95, ours.p99)
    beside = "" if peer is None else peer.name
    if peer is not None and peer.p50 is not None:
        beside += f" {number(peer.p50)}"
    for words in filter(None, (row.note, row.missing)):
        beside += f"; {words}" if beside else words
    return (
        f"{row.claim}, {row.unit}",
        target_words(row.target),
        *("" if value is None or value == "" else number(float(value)) for value in tail),
        beside,
        "" if peer is None else ratio_words(peer.ratio),
        "" if peer is None or peer.band is None else "{:.2f}-{:.2f}".format(*peer.band),
        "" if peer is None or peer.most is None else f"<= {ratio_words(peer.most)}",
        str(row.verdict),
    )


def number(value: float) -> str:
    """Three digits, and no exponent: 0.0123, 1.23, 123, 12,345."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}"


def short(value: float) -> str:
    """A figure that was set, not measured: without zeros that say nothing."""
    return f"{float(number(value).replace(',', '')):,g}"


def ratio_words(ratio: float) -> str:
    """How many times, or which part of it: 1.25 or 1/40."""
    return f"1/{1 / ratio:,.0f}" if 0 < ratio < 0.1 else f"{ratio:.2f}"


def target_words(target: Target) -> str:
    """What was asked of ours: one figure, or one for each percentile."""
    asked = {name: most for name, most in vars(target).items() if most is not None}
    if not asked:
        return ""
    if set(asked) == {"p50"}:
        return f"<= {short(asked['p50'])}"
    return " / ".join(f"{name} <= {short(most)}" for name, most in asked.items())
