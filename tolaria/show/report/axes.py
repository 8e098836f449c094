"""The axes of the charts: epochs across, alike in all of them, and values down."""

from __future__ import annotations

from typing import Final

from tolaria.show.report import svg

AXIS_HEIGHT: Final = 40
"""Room below a plot for the ticks and the name of its epochs, in pixels."""


def epoch_scale(last: int, first: int = 0) -> svg.Scale:
    """The epochs' axis, alike in all charts, so that they can be read one below the other."""
    return svg.Scale(first, max(last, first + 1), 0, 100)


def epoch_grid(x: svg.Scale, top: float, bottom: float) -> list[str]:
    """A vertical line at each tick of the epochs' axis."""
    return [svg.line(x(tick), top, x(tick), bottom, "grid") for tick in _epoch_ticks(x)]


def epoch_axis(x: svg.Scale, y: float) -> list[str]:
    """The axis line, its ticks and its name."""
    parts = [svg.line(x.start, y, x.end, y, "axis")]
    for tick in _epoch_ticks(x):
        parts.append(svg.line(x(tick), y, x(tick), y + 4, "axis"))
        parts.append(svg.text(x(tick), y + 17, str(tick), anchor="middle", css="tick"))
    return [*parts, svg.text(50, y + 34, "epoch", anchor="middle", css="axis-name")]


def value_axis(x: svg.Scale, y: svg.Scale) -> list[str]:
    """Horizontal grid lines with their values."""
    parts = []
    for tick in svg.ticks(y.low, y.high, 7):
        parts.append(svg.line(x.start, y(tick), x.end, y(tick), "grid"))
        label = svg.tick_label(tick)
        parts.append(svg.text(x.start, y(tick) + 4, label, dx=-8, anchor="end", css="tick"))
    return parts


def _epoch_ticks(x: svg.Scale) -> list[int]:
    return svg.whole_ticks(int(x.low), int(x.high), 6)
