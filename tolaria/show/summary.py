"""What a run came to, for its end and for looking at it later."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from leyline import Stage, limits
from tolaria.disk.usage import disk_words
from tolaria.show.bus import bus_words
from tolaria.show.lives import SeedLife
from tolaria.show.phrases import (
    cause_words,
    clean,
    counted,
    figure,
    flops_words,
    gain_words,
    growth,
    headline,
    life_name,
    life_words,
    milliseconds,
    stage_word,
    stretches,
)
from tolaria.show.scores import plain_table
from tolaria.show.view import RunView

if TYPE_CHECKING:
    from oona import BusStatistics

_REMOVED: Final = (Stage.CULLED, Stage.ROLLED_BACK)


def summarise(
    view: RunView,
    *,
    bus: BusStatistics | None = None,
    run_dir: Path | None = None,
    report: Path | None = None,
) -> RenderableType:
    """Everything worth knowing when a run ends, in at most 80 columns where names allow it."""
    parts: list[RenderableType] = [Text(""), title(view), _figures(view)]
    grafted = [life for life in view.seeds if life.touched_host]
    if grafted:
        parts += [Text(""), seeds_table(view), Text(life_words(grafted), "dim")]
    parts += _removals(view)
    if view.boundaries:
        parts += [Text(""), _latency_table(view)]
    parts += [Text(""), _places(view, bus, run_dir, report)]
    return Group(*parts)


def title(view: RunView) -> Text:
    """The run, how it ended or goes on, and how far it came."""
    of = f" of {view.num_epochs}" if view.num_epochs else ""
    style = "green" if view.status == "finished" else "yellow"
    name = clean(view.run_id) or "run"
    return Text.assemble(
        (name, "bold"), " ", (clean(view.status), style), f", epoch {view.epoch}{of}"
    )


def seeds_table(view: RunView, *, cancelled: bool = False) -> Table:
    """Each life of each seed; candidates that never touched the host only on request."""
    table = plain_table(gap=1)
    table.add_column("seed", overflow="fold")
    table.add_column("blueprint", no_wrap=True)
    for heading in ("params", "trial gain", "counterfactual"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("now", no_wrap=True)
    for life in view.seeds:
        if life.stage == Stage.CANCELLED and not life.touched_host and not cancelled:
            continue
        table.add_row(
            Text(life_name(life)),
            Text(clean(life.blueprint)),
            f"{life.parameters:,}",
            gain_words(life.trial),
            gain_words(life.counterfactual),
            Text(_stage_words(life), style=_stage_style(life.stage)),
        )
    return table


def decisions_table(view: RunView) -> Table:
    """What was decided and why; holds for one cause in a row are one line."""
    table = plain_table()
    table.add_column("epoch", no_wrap=True, justify="right")
    table.add_column("decision", overflow="fold", ratio=2)
    table.add_column("cause", overflow="fold", ratio=3)
    for stretch in stretches(view.decisions):
        style = "bold" if stretch.decision.commands else "dim"
        what = Text(headline(stretch.decision), style=style)
        table.add_row(stretch.epochs, what, Text(cause_words(stretch.decision)))
    return table


# --- parts of the summary --------------------------------------------------------------------


def _figures(view: RunView) -> Table:
    grid = _grid()
    grid.add_row("parameters", growth(view.host_parameters, view.parameters))
    graft = view.first_graft_epoch
    before = view.metrics_at(graft) if graft is not None else {}
    for name, value in view.metrics_at(None).items():
        words = figure(float(value))
        if name in before:
            words = f"{figure(float(before[name]))} at epoch {graft}, before growth -> {words}"
        grid.add_row(Text(clean(name)), words)
    final = view.ended.metrics if view.ended else {}
    for name, value in final.items():
        if name not in view.metrics_at(None):
            grid.add_row(Text(clean(name)), figure(float(value)))
    if words := flops_words(view.flops_spent):
        grid.add_row("FLOPs", Text(words))
    if before:
        grid.add_row(
            "", Text("training went on too: growth's own share is the trial gain below", "dim")
        )
    return grid


def _removals(view: RunView) -> list[RenderableType]:
    """Why seeds went, and how many candidates were cancelled; faults and refusals counted."""
    lines = [
        f"{stage_word(life.stage.name)} {life_name(life)}: {clean(life.cause)}"
        for life in view.seeds
        if life.stage in _REMOVED
    ]
    cancelled = sum(life.stage == Stage.CANCELLED for life in view.seeds)
    if cancelled:
        lines.append(f"{counted(cancelled, 'candidate')} cancelled before touching the network")
    if view.refusals:
        lines.append(f"{counted(len(view.refusals), 'transition')} refused")
    items: list[RenderableType] = [Text(line) for line in lines]
    items += [
        Text(f"fault at epoch {fault.epoch} in {clean(fault.where)}: {clean(fault.what)}", "red")
        for fault in view.faults
    ]
    return [Text(""), *items] if items else []


def _latency_table(view: RunView) -> Table:
    table = plain_table()
    table.add_column("boundary")
    for heading in ("p50", "p95", "limit", "times over"):
        table.add_column(heading, justify="right", no_wrap=True)
    allowed = (limits.GATHER_MS, limits.DECIDE_MS, limits.APPLY_MS, limits.BOUNDARY_MS)
    rows = zip(
        ("gather", "decide", "apply", "all three"),
        view.latency(50),
        view.latency(95),
        allowed,
        view.num_over_limit(allowed),
        strict=True,
    )
    for part, p50, p95, limit, num_over in rows:
        over = Text(f"{p95:.2f} ms", style="bold red" if p95 > limit else "")
        style = "bold" if part == "all three" else None
        times = str(num_over) if num_over else "-"
        table.add_row(part, f"{p50:.2f} ms", over, f"{limit:g} ms", times, style=style)
    return table


def _places(
    view: RunView, bus: BusStatistics | None, run_dir: Path | None, report: Path | None
) -> Table:
    grid = _grid()
    outside = sorted(view.outside_ms().items(), key=lambda item: -item[1])
    for number, (kind, ms) in enumerate(outside):
        grid.add_row("" if number else "outside it", Text(f"{milliseconds(ms)} {clean(kind)}"))
    if bus is not None:
        grid.add_row("bus", bus_words(bus))
    run = str(run_dir) if run_dir is not None else clean(view.run_id) or "RUN"
    if run_dir is not None:
        grid.add_row("run", Text(run))
        grid.add_row("on disk", Text(disk_words(run_dir)))
    if report is not None:
        grid.add_row("report", Text(str(report)))
    grid.add_row("next", Text(f"esper inspect {run}", style="bold"))
    if any(life.touched_host for life in view.seeds):
        grid.add_row("", Text(f"esper explain {run}", style="bold"))
    grid.add_row("", Text(f"esper export {run} -o model.pt2", style="bold"))
    return grid


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True, max_width=24)
    grid.add_column(overflow="fold")
    return grid


def _stage_words(life: SeedLife) -> str:
    blending = f" {life.alpha:.2f}" if life.stage == Stage.GRAFTING else ""
    return f"{stage_word(life.stage.name)}{blending}"


def _stage_style(stage: Stage) -> str:
    if stage in _REMOVED:
        return "red"
    return "green" if stage in (Stage.FINE_TUNING, Stage.FOSSILIZED) else ""
