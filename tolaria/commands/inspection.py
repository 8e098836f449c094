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
from leyline import Stage
from tolaria.commands.history import read_view, standing_line
from tolaria.disk.run import RunDirectory
from tolaria.disk.usage import disk_use, disk_words
from tolaria.show import report
from tolaria.show.bus import dropped_words
from tolaria.show.health import health_lines
from tolaria.show.output import Output
from tolaria.show.phrases import clean, counted, life_words
from tolaria.show.plain import view_dict
from tolaria.show.sites import sites_lines
from tolaria.show.summary import decisions_table, seeds_table, title
from tolaria.show.view import RunView


def inspect_run(path: Path, *, as_json: bool) -> None:
    """Print the seeds, decisions and bus ledger of a run, live or ended."""
    run = RunDirectory.open(path, lock=False)
    view = read_view(run)
    ledger = oona.ledger(run.path)
    if as_json:
        content = view_dict(view)
        content["run_id"] = run.run_id
        content["disk_size_bytes"] = disk_use(run.path)
        content["bus"] = {
            name: getattr(ledger, name)
            for name in ("offered", "delivered", "dropped", "queued", "dropped_by_type")
        }
        sys.stdout.write(json.dumps(msgspec.to_builtins(content), indent=2) + "\n")
        return
    console = Output()
    console.print(title(view))
    if line := standing_line(run, view):
        console.print(line, markup=False, soft_wrap=True)
    console.print()
    _say_seeds(console, view)
    console.print()
    if view.decisions:
        console.print(decisions_table(view))
    else:
        console.print("no decision was made" + ("" if view.epochs else ": no epoch has ended"))
    if lines := fault_lines(view):
        console.print("\n" + "\n".join(lines), markup=False, soft_wrap=True)
    if view.sites is not None:
        console.print("\n" + "\n".join(sites_lines(view.sites)), markup=False, soft_wrap=True)
    if view.lifecycle is not None:
        console.print(f"\n{lifecycle_line(view.lifecycle)}", markup=False)
    if lines := health_lines(view):
        console.print("\n" + "\n".join(lines), markup=False, soft_wrap=True)
    if view.learning_rates is not None:
        console.print(rates_line(view.learning_rates), markup=False)
    console.print(
        f"\nbus: {ledger.offered} offered = {ledger.delivered} delivered + "
        f"{ledger.dropped} dropped + {ledger.queued} queued"
    )
    if dropped := dropped_words(ledger):
        console.print(f"dropped: {dropped}", markup=False, soft_wrap=True)
    console.print(f"on disk: {disk_words(run.path)}", soft_wrap=True)


def _say_seeds(console: Console, view: RunView) -> None:
    """The seeds that touched the network, how to read their names, and how many others there were.

    A candidate that only raced has its score with the decision that ended the race.
    """
    shown = [life for life in view.seeds if life.touched_host or life.stage != Stage.CANCELLED]
    num_cancelled = len(view.seeds) - len(shown)
    rest = f"{counted(num_cancelled, 'candidate')} cancelled before touching the network"
    if shown:
        console.print(seeds_table(view))
        rest = "; ".join([life_words(shown), *([rest] if num_cancelled else [])])
    elif not num_cancelled:
        rest = "no seed was planted"
    console.print(rest, style="dim", markup=False, soft_wrap=True)


def fault_lines(view: RunView) -> list[str]:
    """What failed and what was done about it, one line each."""
    return [
        f"fault at step {fault.step} in {clean(fault.where)}: {clean(fault.what)} -> "
        f"{clean(fault.action)}"
        for fault in view.faults
    ]


def lifecycle_line(metrics: leyline.LifecycleMetrics) -> str:
    """The last boundary's lifecycle metrics in one line; what did not happen there is left out."""
    stages = ", ".join(f"{num} {clean(name)}" for name, num in metrics.stages.items())
    stages = stages or "no seeds"
    if not math.isnan(metrics.mean_alpha):
        stages += f", grafting at alpha {metrics.mean_alpha:.2f}"
    nouns = ("transition", "fault", "refusal")
    counts = (metrics.transitions, metrics.faults, metrics.refusals)
    happened = [counted(num, noun) for num, noun in zip(counts, nouns, strict=True) if num]
    parts = [f"seeds after epoch {metrics.epoch}: {stages}"]
    parts += [f"{', '.join(happened)} at that boundary"] if happened else []
    return "; ".join([*parts, f"{counted(metrics.seed_checkpoints, 'seed checkpoint')} so far"])


def rates_line(rates: leyline.LearningRates) -> str:
    """The learning rates after the last boundary in one line."""
    seeds = "".join(f", {clean(seed)} {rate:g}" for seed, rate in rates.seeds.items())
    host = " ".join(f"{rate:g}" for rate in rates.host)
    return f"learning rates after epoch {rates.epoch}: host {host}{seeds}"


def write_report(path: Path) -> None:
    """Write the HTML report of a run again, from its journal."""
    run = RunDirectory.open(path, lock=False)
    report.write(read_view(run), run.report)
    Output().print(f"report: {run.report}")
