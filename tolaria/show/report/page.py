"""The page: key figures, metrics with lifecycle marks, timelines and stories of seeds, latency,
decisions, faults and risk.

The markup is both HTML and well-formed XML; nothing in it is fetched from anywhere.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from leyline import Stage
from leyline.limits import BOUNDARY_MS
from tolaria.disk.files import write_atomic
from tolaria.show.phrases import counted, figure, flops_words, stage_word
from tolaria.show.report import charts, tables, timeline
from tolaria.show.report.risk import risk_strip
from tolaria.show.report.stories import stories
from tolaria.show.report.style import style_sheet
from tolaria.show.report.svg import escape
from tolaria.show.sites import sites_words
from tolaria.show.view import RunView


def write(view: RunView, path: Path) -> None:
    """Write the report of a run, finished or not, as one self-contained HTML file.

    Raises:
        RunError: the file cannot be written; an older one is as it was.
    """
    write_atomic(path, render(view).encode())


def render(view: RunView) -> str:
    """The report's text."""
    title = escape(view.run_id) or "Esper run"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8" />\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1" />\n'
        f"<title>{title}</title>\n<style>{style_sheet()}</style>\n</head>\n<body>\n"
        f'<h1>{title}</h1>\n<p class="sub">{_subtitle(view)}</p>\n'
        f"{_key_figures(view)}\n{_metrics(view)}\n{_seeds(view)}\n{_boundary(view)}\n"
        f"<h2>Decisions</h2>\n{tables.decisions_table(view)}\n"
        f"<h2>Faults, refusals and risk</h2>\n{risk_strip(view.risk_changes, view.epoch)}"
        f"{tables.faults_table(view)}\n</body>\n</html>\n"
    )


def _subtitle(view: RunView) -> str:
    of = f" of {view.num_epochs}" if view.num_epochs else ""
    parts = [escape(view.model), escape(view.status), f"epoch {view.epoch}{of}"]
    if view.num_resumes:
        parts.append(f"resumed {counted(view.num_resumes, 'time')}")
    return ", ".join(part for part in parts if part)


def _key_figures(view: RunView) -> str:
    """A tile for each figure a reader asks for first."""
    grown = view.parameters - view.host_parameters
    share = f" ({100 * grown / view.host_parameters:+.1f} %)" if view.host_parameters else ""
    tiles = [
        ("parameters", f"{view.parameters:,}", f"host {view.host_parameters:,}, {grown:+,}{share}")
    ]
    graft = view.first_graft_epoch
    before = view.metrics_at(graft) if graft is not None else {}
    final = view.ended.metrics if view.ended else {}
    for name, value in (view.metrics_at(None) | final).items():
        was = before.get(name)
        note = f"{figure(float(was))} at epoch {graft}, before growth" if was is not None else ""
        tiles.append((name, figure(float(value)), note))
    stages = Counter(life.stage for life in view.seeds)
    live = [life for life in view.seeds if Stage.GRAFTING <= life.stage <= Stage.FOSSILIZED]
    gone = ", ".join(
        f"{stages[stage]} {stage_word(stage.name)}"
        for stage in (Stage.CULLED, Stage.ROLLED_BACK, Stage.CANCELLED)
        if stages[stage]
    )
    tiles.append(("seeds in the network", str(len(live)), gone))
    p50, p95 = view.latency(50).total, view.latency(95).total
    latency = f"p50 {p50:.2f}, limit {BOUNDARY_MS:g} ms" if view.boundaries else ""
    tiles.append(("boundary p95", f"{p95:.2f} ms" if view.boundaries else "-", latency))
    if words := flops_words(view.flops_spent):
        total, _, shares = words.partition(": ")
        tiles.append(("FLOPs", total, shares))
    if view.sites is not None:
        tiles.append(("sites", *sites_words(view.sites)))
    tiles.append(("faults", str(len(view.faults)), f"{len(view.refusals)} refused"))
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{_unbroken(note)}</small></dd></div>"
        for name, value, note in tiles
    )
    return f'<dl class="figures">{items}</dl>'


def _unbroken(note: str) -> str:
    """A note whose figures stay with their unit."""
    return escape(note).replace(" %", "&#160;%")


def _metrics(view: RunView) -> str:
    """A chart of the losses, one of the accuracies, and one of anything else that was measured."""
    names = list(dict.fromkeys(name for epoch in view.epochs for name in view.metrics[epoch]))
    losses = [name for name in names if "loss" in name.lower()]
    accuracies = [name for name in names if "acc" in name.lower() and name not in losses]
    others = [name for name in names if name not in losses and name not in accuracies]
    events = charts.lifecycle_events(view)
    groups = [("loss", "the run's own unit", losses), ("accuracy", "share", accuracies)]
    groups += [(name, "as logged", [name]) for name in others]
    drawn = [
        charts.metric_chart(
            title,
            unit,
            {
                name: [
                    (epoch, view.metrics[epoch][name])
                    for epoch in view.epochs
                    if name in view.metrics[epoch]
                ]
                for name in members
            },
            events,
            view.epoch,
        )
        for title, unit, members in groups
        if members
    ]
    if view.flops:
        drawn.append(charts.metric_chart("FLOPs so far", "billions", _flops(view), [], view.epoch))
    body = "\n".join(drawn) or '<p class="none">No epoch has ended.</p>'
    return f"<h2>Metrics</h2>\n{_mark_legend(events)}{body}"


def _flops(view: RunView) -> dict[str, list[tuple[int, float]]]:
    """Billions of FLOPs by epoch, of each use of them."""
    epochs = sorted(view.flops)
    return {
        use: [(epoch, view.flops[epoch].get(use, 0) / 1e9) for epoch in epochs]
        for use in view.flops_spent
    }


def _mark_legend(events: list[charts.Event]) -> str:
    stages = sorted({event.stage for event in events})
    items = "".join(
        f'<li><svg viewBox="-7 -7 14 14" aria-hidden="true">{charts.glyph(stage)}</svg>'
        f"{charts.GLYPH_WORDS[stage]}</li>"
        for stage in stages
    )
    return f'<ul class="legend">{items}</ul>' if items else ""


def _seeds(view: RunView) -> str:
    shown = timeline.shown(view.seeds)
    note = timeline.cancelled_words(view.seeds)
    return (
        f"<h2>Seeds</h2>\n{timeline.legend() if shown else ''}"
        f"{timeline.timeline(shown, view.epoch)}\n{tables.seeds_table(view)}"
        f'{stories(view)}<p class="note">{escape(note)}</p>'
    )


def _boundary(view: RunView) -> str:
    if not view.boundaries:
        return '<h2>Boundaries</h2>\n<p class="none">No boundary was timed.</p>'
    items = "".join(
        f'<li><span class="swatch c{number}"></span>{part}</li>'
        for number, part in enumerate(charts.PARTS)
    )
    return (
        f'<h2>Boundaries</h2>\n<ul class="legend">{items}</ul>'
        f"{charts.latency_chart(view.boundaries, view.epoch)}\n{tables.latency_table(view)}"
        f'<p class="note">{tables.outside_words(view)}</p>'
    )
