"""Charts over epochs: metrics with the lifecycle's marks, and what the boundaries cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from leyline import BoundaryTiming, Stage
from leyline.limits import BOUNDARY_MS
from tolaria.show.latency import boundary_ms
from tolaria.show.report import svg
from tolaria.show.view import RunView

WIDTH: Final = 960
LEFT: Final = 64
RIGHT: Final = 150
"""Margin for the names of lines, at their ends."""
_PLOT_HEIGHT: Final = 210
_BOTTOM: Final = 42
_GLYPH_STEP: Final = 13
_NAME_CHARS: Final = 20
_PARTS: Final = ("gather", "decide", "apply")

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


def glyph(x: float, y: float, stage: Stage, title: str = "") -> str:
    """A lifecycle mark."""
    tip = f"<title>{svg.escape(title)}</title>" if title else ""
    return (
        f'<path d="{GLYPHS[stage]}" transform="translate({x:.1f},{y:.1f})" '
        f'class="glyph s{stage.value}">{tip}</path>'
    )


def epoch_scale(last: int, first: int = 0) -> svg.Scale:
    """The epochs' axis, alike in these charts, so that they can be read one below the other."""
    return svg.Scale(first, max(last, first + 1), LEFT, WIDTH - RIGHT)


def epoch_axis(x: svg.Scale, y: float) -> list[str]:
    """The axis line, its ticks and its name."""
    parts = [svg.line(x.start_px, y, x.end_px, y, "axis")]
    for tick in svg.whole_ticks(int(x.low), int(x.high), 10):
        parts.append(svg.line(x(tick), y, x(tick), y + 4, "axis"))
        parts.append(svg.text(x(tick), y + 17, str(tick), anchor="middle", css="tick"))
    middle = (x.start_px + x.end_px) / 2
    return [*parts, svg.text(middle, y + 34, "epoch", anchor="middle", css="axis-name")]


def value_axis(x: svg.Scale, y: svg.Scale, name: str) -> list[str]:
    """Horizontal grid lines with their values, and the name of what is drawn, with its unit."""
    parts = []
    for tick in svg.ticks(y.low, y.high, 5):
        parts.append(svg.line(x.start_px, y(tick), x.end_px, y(tick), "grid"))
        label = svg.tick_label(tick)
        parts.append(svg.text(x.start_px - 8, y(tick) + 4, label, anchor="end", css="tick"))
    return [*parts, svg.text(x.start_px, 14, name, css="axis-name")]


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
    depth = max((level + 1 for _, level in _stacked(events)), default=0)
    top = 30 + depth * _GLYPH_STEP
    x = epoch_scale(last_epoch)
    low, high = min(values), max(values)
    pad = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    y = svg.Scale(low - pad, high + pad, top + _PLOT_HEIGHT, top)
    parts = value_axis(x, y, f"{title} ({unit})") + epoch_axis(x, top + _PLOT_HEIGHT)
    for event, level in _stacked(events):
        at = x(event.epoch)
        parts.append(svg.line(at, top, at, top + _PLOT_HEIGHT, f"mark s{event.stage.value}"))
        words = f"{GLYPH_WORDS[event.stage]} after epoch {event.epoch}: {event.seed}"
        parts.append(glyph(at, top - 8 - level * _GLYPH_STEP, event.stage, words))
    ends = []
    for number, points in enumerate(series.values()):
        css = f"line c{number % 6}"
        runs = _unbroken(points)
        parts += [svg.polyline([(x(at), y(value)) for at, value in run], css) for run in runs]
        ends.append(y(runs[-1][-1][1]) if runs else y.start_px)
    heights = svg.spread(ends, 15, top + 6, top + _PLOT_HEIGHT)
    for number, (name, height) in enumerate(zip(series, heights, strict=True)):
        last = next((v for _, v in reversed(series[name]) if math.isfinite(v)), math.nan)
        label = f"{svg.shorten(name, _NAME_CHARS - 6)} {last:.3g}"
        css = f"series c{number % 6}"
        parts.append(svg.text(x.end_px + 10, height + 4, label, css=css))
    return svg.figure(WIDTH, top + _PLOT_HEIGHT + _BOTTOM, f"{title} per epoch", parts)


def latency_chart(boundaries: Sequence[BoundaryTiming], last_epoch: int) -> str:
    """Each boundary's parts as one bar, against the limit."""
    if not boundaries:
        return '<p class="none">No boundary was timed.</p>'
    top = 30.0
    x = epoch_scale(last_epoch)
    slowest = max(boundary_ms(timing).total for timing in boundaries)
    y = svg.Scale(0, max(BOUNDARY_MS, slowest) * 1.08, top + _PLOT_HEIGHT, top)
    parts = value_axis(x, y, "boundary (ms)") + epoch_axis(x, top + _PLOT_HEIGHT)
    width = min(18.0, max(1.0, (x(1) - x(0)) * 0.62))
    for timing in boundaries:
        base = 0.0
        for number, (part, ms) in enumerate(zip(_PARTS, boundary_ms(timing), strict=False)):
            height = y(base) - y(base + ms)
            words = f"epoch {timing.epoch}: {part} {ms:.2f} ms"
            parts.append(
                svg.rect(
                    x(timing.epoch) - width / 2,
                    y(base + ms),
                    width,
                    height,
                    f"bar c{number}",
                    words,
                )
            )
            base += ms
    parts.append(svg.line(x.start_px, y(BOUNDARY_MS), x.end_px, y(BOUNDARY_MS), "limit"))
    limit = f"limit {BOUNDARY_MS:g} ms"
    parts.append(svg.text(x.end_px + 10, y(BOUNDARY_MS) + 4, limit, css="label over"))
    return svg.figure(WIDTH, top + _PLOT_HEIGHT + _BOTTOM, "boundary latency per epoch", parts)


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
