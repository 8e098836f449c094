"""`esper inspect` and `esper report`: what a run directory says of its run."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import msgspec
from rich.console import Console

import leyline
import oona
from tolaria.commands.runs import read_view
from tolaria.disk.run import RunDirectory
from tolaria.show import report
from tolaria.show.sites import sites_lines
from tolaria.show.summary import decisions_table, seeds_table


def inspect_run(path: Path, *, as_json: bool) -> None:
    """Print the seeds, decisions and bus ledger of a run, live or ended."""
    run = RunDirectory.open(path, lock=False)
    view = read_view(run)
    ledger = oona.ledger(run.path)
    if as_json:
        content = view.to_dict()
        content["run_id"] = run.run_id
        content["bus"] = {
            name: getattr(ledger, name) for name in ("offered", "delivered", "dropped", "queued")
        }
        sys.stdout.write(json.dumps(msgspec.to_builtins(content), indent=2) + "\n")
        return
    console = Console(highlight=False)
    console.print(seeds_table(view))
    console.print()
    console.print(decisions_table(view))
    if view.sites is not None:
        console.print("\n" + "\n".join(sites_lines(view.sites)), markup=False, soft_wrap=True)
    if view.lifecycle is not None:
        console.print(f"\n{lifecycle_line(view.lifecycle)}")
    console.print(
        f"\nbus: {ledger.offered} offered = {ledger.delivered} delivered + "
        f"{ledger.dropped} dropped + {ledger.queued} queued"
    )


def lifecycle_line(metrics: leyline.LifecycleMetrics) -> str:
    """The last boundary's lifecycle metrics in one line."""
    stages = ", ".join(f"{num} {name}" for name, num in metrics.stages.items()) or "no seeds"
    alpha = (
        "" if math.isnan(metrics.mean_alpha) else f", grafting at alpha {metrics.mean_alpha:.2f}"
    )
    return (
        f"seeds after epoch {metrics.epoch}: {stages}{alpha}; {metrics.transitions} transitions, "
        f"{metrics.faults} faults, {metrics.refusals} refusals; "
        f"{metrics.seed_checkpoints} seed checkpoints so far"
    )


def write_report(path: Path) -> None:
    """Write the HTML report of a run again, from its journal."""
    run = RunDirectory.open(path, lock=False)
    report.write(read_view(run), run.report)
    Console(highlight=False).print(f"report: {run.report}")
