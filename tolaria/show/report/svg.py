"""The few drawing primitives the charts are made of; every text is escaped here."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tolaria.show.phrases import clean

CHAR_WIDTH: Final = 6.4
"""Average width of a character in a label, in pixels, for fitting text."""


def escape(text: str) -> str:
    """Text as it may stand in markup, attributes included."""
    return html.escape(clean(text), quote=True)


def shorten(text: str, num_chars: int) -> str:
    """The text with its middle left out where it is longer than that many characters."""
    text = clean(text)
    if len(text) <= num_chars:
        return text
    head = (num_chars - 3 + 1) // 2
    return f"{text[:head]}...{text[len(text) - (num_chars - 3 - head) :]}"


@dataclass(frozen=True)
class Scale:
    """Maps values to pixels, linearly."""

    low: float
    high: float
    start_px: float
    end_px: float

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        span = (self.high - self.low) or 1.0
        return self.start_px + (value - self.low) / span * (self.end_px - self.start_px)


def ticks(low: float, high: float, num: int) -> list[float]:
    """About `num` round values between low and high: steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    raw = (high - low) / max(num, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def whole_ticks(low: int, high: int, num: int) -> list[int]:
    """The same for counts: whole values only."""
    return sorted({round(tick) for tick in ticks(low, high, num) if float(tick).is_integer()})


def tick_label(value: float) -> str:
    """A tick without the dust of binary fractions."""
    return f"{round(value, 10):g}"


def text(x: float, y: float, content: str, *, anchor: str = "start", css: str = "label") -> str:
    """A label; `css` names its class."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{css}">'
        f"{escape(content)}</text>"
    )


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """A straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}" />'


def rect(x: float, y: float, width: float, height: float, css: str, title: str = "") -> str:
    """A filled box, with a tooltip if a title is given."""
    box = f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" class="{css}"'
    return f"{box}><title>{escape(title)}</title></rect>" if title else f"{box} />"


def polyline(points: Sequence[tuple[float, float]], css: str) -> str:
    """A line through points; a lone point is drawn as a dot."""
    if len(points) == 1:
        (x, y) = points[0]
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" class="{css} dot" />'
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" class="{css}" />'


def spread(wanted: Sequence[float], gap_px: float, low: float, high: float) -> list[float]:
    """Positions near the wanted ones, in their order, at least `gap_px` apart."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    placed: dict[int, float] = {}
    floor = low
    for index in order:
        placed[index] = max(wanted[index], floor)
        floor = placed[index] + gap_px
    ceiling = high
    for index in reversed(order):
        placed[index] = min(placed[index], ceiling)
        ceiling = placed[index] - gap_px
    return [placed[index] for index in range(len(wanted))]


def figure(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    """A whole drawing, scaled to the page's width, with a name for readers that cannot see it."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}">'
        + "".join(parts)
        + "</svg>"
    )
