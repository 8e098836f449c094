"""The few drawing primitives the charts are made of; every text is escaped here.

Across, all is measured in percent of the plot's width, and in pixels down: so a chart fills a wide
page and a narrow one alike, with letters of one size.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from tolaria.show.phrases import clean


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
    """Maps values to places on the page, linearly: pixels down, percent across."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of a value."""
        low = self.low / 2  # halves: the difference of two finite values need not be finite
        span = (self.high / 2 - low) or 1.0
        return self.start + (value / 2 - low) / span * (self.end - self.start)


def ticks(low: float, high: float, num: int) -> list[float]:
    """About `num` round values between low and high: steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    num = max(num, 2)
    raw = high / num - low / num
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


def percent(x: float) -> str:
    """A horizontal place or length as a share of the plot's width, which a page may change."""
    return f"{x:.3f}%"


def text(
    x: float, y: float, content: str, *, dx: float = 0, anchor: str = "start", css: str = "label"
) -> str:
    """A label `dx` pixels beside x; `css` names its class."""
    beside = f' dx="{dx:g}"' if dx else ""
    return (
        f'<text x="{percent(x)}" y="{y:.1f}"{beside} text-anchor="{anchor}" class="{css}">'
        f"{escape(content)}</text>"
    )


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """A straight line."""
    ends = f'x1="{percent(x1)}" y1="{y1:.1f}" x2="{percent(x2)}" y2="{y2:.1f}"'
    return f'<line {ends} class="{css}" />'


def rect(x: float, y: float, width: float, height: float, css: str, title: str = "") -> str:
    """A filled box, with a tooltip if a title is given."""
    place = f'x="{percent(x)}" y="{y:.1f}" width="{percent(width)}" height="{height:.1f}"'
    box = f'<rect {place} class="{css}"'
    return f"{box}><title>{escape(title)}</title></rect>" if title else f"{box} />"


def polyline(points: Sequence[tuple[float, float]], css: str) -> str:
    """A line through points, to stand in `stretched`."""
    path = " ".join(f"{x:.3f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" class="{css}" />'


def dot(x: float, y: float, css: str) -> str:
    """A lone point."""
    return f'<circle cx="{percent(x)}" cy="{y:.1f}" r="2.5" class="{css} dot" />'


def stretched(height: float, lines: Sequence[str]) -> str:
    """Polylines made as wide as the plot: their points take no percentages."""
    box = f'viewBox="0 0 100 {height:g}" height="{height:g}" preserveAspectRatio="none"'
    return f'<svg class="stretch" {box}>{"".join(lines)}</svg>' if lines else ""


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


def plot(height: float, label: str, parts: Sequence[str]) -> str:
    """A drawing as wide as its place on the page, with a name for readers that cannot see it."""
    return (
        f'<svg class="plot" height="{height:g}" role="img" aria-label="{escape(label)}">'
        + "".join(parts)
        + "</svg>"
    )
