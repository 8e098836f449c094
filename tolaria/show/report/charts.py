"""Charts over epochs: metrics with the lifecycle's marks, and what the boundaries cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from leyline import BoundaryTiming, Stage
from leyline.limits import BOUNDARY_MS
from tolaria.show.latency import boundary_ms
from tolaria.show.report import svg
from tolaria.show.report.axes import AXIS_HEIGHT, epoch_axis, epoch_scale, value_axis
from tolaria.show.view import RunView

PARTS: Final = ("gather", "decide", "apply")
_PLOT_HEIGHT: Final = 210
_TOP: Final = 12
_GLYPH_STEP: Final = 14
_LABEL_STEP: Final = 18
"""Between the labels at the ends of lines, so that letters of 12 pixels never touch."""
_NAME_CHARS: Final = 16

GLYPHS: Final[Mapping[Stage, str]] = {
    Stage.GRAFTING: "M0,-5 L5,4 L-5,4 Z",
    Stage.FOSSILIZED: "M-4,-4 H4 V4 H-4 Z",
    Stage.CULLED: "M-4,-4 L4,4 M-4,4 L4,-4",
    Stage.ROLLED_BACK: "M-4,0 H4",
}
"""Shape of each mark, about 10 pixels wide around its origin."""
GLYPH_WORDS: Final[Mapping[Stage, str]] = {
    Stage.GRAFTING: "grafted",
    Stage.FOSSILIZED: "fossilized",
    Stage.CULLED: "culled",
    Stage.ROLLED_BACK: "rolled back",
}


class Event(NamedTuple):
    """A lifecycle event to mark on a chart."""

    epoch: int
    stage: Stage
    seed: str


def lifecycle_events(view: RunView) -> list[Event]:
    """Grafts, fossilizations and removals, by epoch; cancelled candidates are no events."""
    events = []
    for life in view.seeds:
        for stage in GLYPHS:
            epoch = life.epoch_of(stage) if stage in life.path else None
            if epoch is not None:
                events.append(Event(epoch, stage, f"{life.blueprint} at {life.seed}"))
    return sorted(events)


def glyph(stage: Stage, title: str = "") -> str:
    """A lifecycle mark around the origin."""
    tip = f"<title>{svg.escape(title)}</title>" if title else ""
    return f'<path d="{GLYPHS[stage]}" class="glyph s{stage.value}">{tip}</path>'


def metric_chart(
    title: str,
    unit: str,
    series: Mapping[str, Sequence[tuple[int, float]]],
    events: Sequence[Event],
    last_epoch: int,
) -> str:
    """Lines over epochs, named at their ends, with the lifecycle's marks in a lane above."""
    values = [value for points in series.values() for _, value in points if math.isfinite(value)]
    if not values:
        return '<p class="none">Nothing was measured.</p>'
    stacked = _stacked(events)
    top = _TOP + max((level + 1 for _, level in stacked), default=0) * _GLYPH_STEP
    bottom = top + _PLOT_HEIGHT
    x, y = epoch_scale(last_epoch), _value_scale(values, bottom, top)
    parts = value_axis(x, y) + epoch_axis(x, bottom)
    for event, level in stacked:
        parts.append(_mark(event, x(event.epoch), top, bottom, top - 8 - level * _GLYPH_STEP))
    lines: list[str] = []
    labels: list[tuple[str, float]] = []
    ends: list[float] = []
    for number, (name, points) in enumerate(series.items()):
        css = f"line c{number % 6}"
        runs = _unbroken(points)
        for run in runs:
            drawn = [(x(at), y(value)) for at, value in run]
            if len(drawn) > 1:
                lines.append(svg.polyline(drawn, css))
            else:
                parts.append(svg.dot(*drawn[0], css))
        last = runs[-1][-1][1] if runs else math.nan
        ends.append(y(last) if runs else bottom)
        labels.append((name, last))
    parts.append(svg.stretched(bottom, lines))
    heights = svg.spread(ends, _LABEL_STEP, top + 4, bottom - 8)
    for number, ((name, last), height) in enumerate(zip(labels, heights, strict=True)):
        label, css = f"{svg.shorten(name, _NAME_CHARS)} {last:.3g}", f"series end c{number % 6}"
        parts.append(svg.text(x.end, height + 4, label, dx=10, css=css))
    drawing = svg.plot(bottom + AXIS_HEIGHT, f"{title} per epoch", parts)
    return _chart(f"{title} ({unit})", drawing, _keys(labels))


def latency_chart(boundaries: Sequence[BoundaryTiming], last_epoch: int) -> str:
    """Each boundary's parts as one bar, against the limit."""
    if not boundaries:
        return '<p class="none">No boundary was timed.</p>'
    bottom = float(_TOP + _PLOT_HEIGHT)
    x = epoch_scale(last_epoch)
    slowest = max(boundary_ms(timing).total for timing in boundaries)
    y = svg.Scale(0, max(BOUNDARY_MS, slowest) * 1.12, bottom, _TOP)
    parts = value_axis(x, y) + epoch_axis(x, bottom)
    width = min(2.0, (x(1) - x(0)) * 0.62)
    for timing in boundaries:
        base = 0.0
        for number, (part, ms) in enumerate(zip(PARTS, boundary_ms(timing), strict=False)):
            words = f"epoch {timing.epoch}: {part} {ms:.2f} ms"
            left, upper = x(timing.epoch) - width / 2, y(base + ms)
            parts.append(svg.rect(left, upper, width, y(base) - upper, f"bar c{number}", words))
            base += ms
    limit = y(BOUNDARY_MS)
    parts.append(svg.line(x.start, limit, x.end, limit, "limit"))
    parts.append(svg.text(x.end, limit - 6, f"limit {BOUNDARY_MS:g} ms", anchor="end", css="over"))
    drawing = svg.plot(bottom + AXIS_HEIGHT, "boundary latency per epoch", parts)
    return _chart("boundary (ms)", drawing)


def _chart(name: str, drawing: str, keys: str = "") -> str:
    """A drawing under its name and unit."""
    caption = f"<figcaption>{svg.escape(name)}</figcaption>"
    return f'<figure class="chart">{caption}{keys}{drawing}</figure>'


def _keys(labels: Sequence[tuple[str, float]]) -> str:
    """The lines' names where the page is too narrow for them at the lines' ends."""
    items = "".join(
        f'<li class="c{number % 6}"><span class="swatch"></span>{svg.escape(name)} {last:.3g}</li>'
        for number, (name, last) in enumerate(labels)
    )
    return f'<ul class="legend keys">{items}</ul>'


def _mark(event: Event, x: float, top: float, bottom: float, height: float) -> str:
    """What happened to a seed: a line through the plot, and its glyph above."""
    words = f"{GLYPH_WORDS[event.stage]} after epoch {event.epoch}: {event.seed}"
    return (
        svg.line(x, top, x, bottom, f"mark s{event.stage.value}")
        + f'<svg x="{svg.percent(x)}" y="{height:.1f}" class="at">{glyph(event.stage, words)}</svg>'
    )


def _value_scale(values: Sequence[float], bottom: float, top: float) -> svg.Scale:
    """From the smallest to the largest with a little room, but not below zero for that."""
    low, high = min(values), max(values)
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    floor = low - room if low < 0 else max(low - room, 0.0)
    return svg.Scale(floor, high + room, bottom, top)


def _stacked(events: Sequence[Event]) -> list[tuple[Event, int]]:
    """Events with a level each, so that marks of one epoch stand above one another."""
    levels: dict[int, int] = {}
    stacked = []
    for event in events:
        level = levels.get(event.epoch, 0)
        levels[event.epoch] = level + 1
        stacked.append((event, level))
    return stacked


def _unbroken(points: Sequence[tuple[int, float]]) -> list[list[tuple[int, float]]]:
    """Runs of finite values: a line must not bridge an epoch that was not measured."""
    runs: list[list[tuple[int, float]]] = [[]]
    for at, value in points:
        if math.isfinite(value):
            runs[-1].append((at, value))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]
