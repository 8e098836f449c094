"""The scores of a race: what each candidate gained, and what was needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from leyline import Score
from tolaria.show.lives import Gain
from tolaria.show.phrases import work_words
from tolaria.show.report import svg
from tolaria.show.report.cells import measured, row, table
from tolaria.show.report.svg import escape
from tolaria.show.story import ranked

_HEADS: Final = ("=blueprint", "~site", "#gain", "#needed", "", "#parameters", "#steps")
_COSTS: Final = {"value": "#value", "work": "#work"}
"""Columns that are there only where they tell something."""
_INTERVAL_MARGIN_PERCENT: Final = 3


def scores_table(scores: Sequence[Score], of: Score | None = None) -> str:
    """Candidates, best first, with gain, error and what was needed drawn on one scale.

    Args:
        scores: of a race.
        of: the one that the table is about, which is marked.
    """
    ends = [score.gain + sign * _known(score.gain_error) for score in scores for sign in (-2, 2)]
    ends += [score.threshold for score in scores] + [0.0]
    known = [end for end in ends if math.isfinite(end)]
    margin = _INTERVAL_MARGIN_PERCENT
    x = svg.Scale(min(known), max(known), margin, 100 - margin)
    costs = _costs(scores)
    heads = (*_HEADS, *costs)
    rows = [row(heads, _cells(s, x, costs), css=_css(s, of)) for s in ranked(scores)]
    words = "Bars: gain with two standard errors; red: what was needed. Bold: chosen."
    if _COSTS["value"] in costs:
        words += " Value: the gain less its costs, by which they were compared."
    if _COSTS["work"] in costs:
        words += " Work: what it adds to a training step."
    return f'{table(heads, rows, css="tight")}<p class="note">{words}</p>'


def _costs(scores: Sequence[Score]) -> list[str]:
    """Columns of costs that tell something: a value that is not the gain, work that is known."""
    is_valued = any(not math.isnan(s.value) and s.value != s.gain for s in scores)
    is_weighed = any(score.step_cost for score in scores)
    return [_COSTS["value"]] * is_valued + [_COSTS["work"]] * is_weighed


def _css(score: Score, of: Score | None) -> str:
    return "chosen" if score.chosen else "told" if score is of else ""


def _cells(score: Score, x: svg.Scale, costs: Sequence[str]) -> list[str]:
    cells = [
        escape(score.blueprint),
        escape(score.site),
        measured(Gain(score.gain, score.gain_error)),
        measured(Gain(score.threshold)),
        _interval(score, x),
        f"{score.parameters:,}",
        f"{score.steps:,}",
    ]
    known = {
        _COSTS["value"]: measured(Gain(score.value)),
        _COSTS["work"]: work_words(score.step_cost),
    }
    return cells + [known[head] for head in costs]


def _interval(score: Score, x: svg.Scale) -> str:
    if not math.isfinite(score.gain):
        return ""
    error = 2 * _known(score.gain_error)
    parts = [svg.line(x(0), 0, x(0), 14, "zero")]
    parts.append(svg.line(x(score.gain - error), 7, x(score.gain + error), 7, "whisker"))
    parts.append(f'<circle cx="{svg.percent(x(score.gain))}" cy="7" r="3" />')
    if math.isfinite(score.threshold):
        parts.append(svg.line(x(score.threshold), 2, x(score.threshold), 12, "needed"))
    return f'<svg class="interval" aria-hidden="true">{"".join(parts)}</svg>'


def _known(error: float) -> float:
    return error if math.isfinite(error) else 0.0
