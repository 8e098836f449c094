"""What Esper costs, and how far that is from the limit: one table, and results.json.

Every ratio is ours over a peer or limit, measured by turns in the same process, so less is better;
`itself` is the peer over itself, which is noise. Names choose benches; without any all are run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table

from bench.catalogue import BENCHES, ONLY_FULL
from bench.harness import Effort, Row
from bench.harness import results as kept
from bench.harness.against import changes
from bench.harness.machine import words
from bench.harness.table import number, show
from leyline import EsperError

RESULTS = Path(__file__).parent / "results.json"
_MISTAKE = 2


@click.command(
    help=__doc__,
    epilog=f"NAMES: {', '.join(BENCHES)}.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("names", nargs=-1, type=click.Choice(list(BENCHES)), metavar="[NAME]...")
@click.option(
    "--quick",
    is_flag=True,
    help="a third of the pairs, not the slowest rows: under two minutes",
)
@click.option(
    "--against",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="compare with results of another time, by ratios",
)
@click.option(
    "--json",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    help="where results go; a full run of all writes bench/results.json",
)
def main(names: tuple[str, ...], quick: bool, against: Path | None, target: Path | None) -> None:
    """Measure, print, write."""
    before = None if against is None else kept.read(against)
    torch.set_num_threads(1)
    click.echo(words())
    chosen = [name for name in names or BENCHES if names or not quick or name not in ONLY_FULL]
    found: list[Row] = []
    for name in chosen:
        bench, rows = BENCHES[name], list[Row]()
        rows.extend(bench.rows(Effort(quick)))
        show(bench.TITLE, rows)
        found += rows
    click.echo(kept.count(found))
    if quick and not names:
        click.echo(f"left to the full run: {', '.join(ONLY_FULL)}")
    now = kept.results(found, is_quick=quick)
    path = target or (None if names or quick else RESULTS)
    if path is not None:
        path.write_text(json.dumps(now, indent=1) + "\n")
        click.echo(f"written to {path}")
    if before is not None:
        _compare(before, now)


def _compare(before: dict[str, Any], now: dict[str, Any]) -> None:
    table = Table(title="against the earlier results, by ratios", box=None, title_justify="left")
    for heading in ("row", "then", "now", "factor", "noise", ""):
        table.add_column(heading, justify="left" if heading in ("row", "") else "right")
    for change in changes(before, now):
        figures = (change.before, change.after, change.factor, change.noise)
        table.add_row(change.id, *map(number, figures), change.words)
    Console(highlight=False, width=150).print(table)


if __name__ == "__main__":
    try:
        main()
    except EsperError as error:
        click.echo(f"bench: {error}", err=True)
        sys.exit(_MISTAKE)
