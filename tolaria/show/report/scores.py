"""The scores of a race: what each candidate gained, and what was needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from leyline import Score
from tolaria.show.lives import Gain
from tolaria.show.report import svg
from tolaria.show.report.cells import measured, row, table
from tolaria.show.report.svg import escape

_HEADS: Final = ("=blueprint", "~site", "#gain", "#needed", "", "#parameters", "#steps")
_INTERVAL_MARGIN_PERCENT: Final = 3


def scores_table(scores: Sequence[Score]) -> str:
    """Candidates, best first, with gain, error and what was needed drawn on one scale."""
    ends = [score.gain + sign * _known(score.gain_error) for score in scores for sign in (-2, 2)]
    ends += [score.threshold for score in scores] + [0.0]
    known = [end for end in ends if math.isfinite(end)]
    margin = _INTERVAL_MARGIN_PERCENT
    x = svg.Scale(min(known), max(known), margin, 100 - margin)
    ranked = sorted(scores, key=lambda score: (math.isnan(score.gain), -score.gain))
    rows = [_score_row(score, x) for score in ranked]
    words = "Bars: gain with two standard errors; red: what was needed. Bold: chosen."
    return f'{table(_HEADS, rows, css="tight")}<p class="note">{words}</p>'


def _score_row(score: Score, x: svg.Scale) -> str:
    cells = [
        escape(score.blueprint),
        escape(score.site),
        measured(Gain(score.gain, score.gain_error)),
        measured(Gain(score.threshold)),
        _interval(score, x),
        f"{score.parameters:,}",
        f"{score.steps:,}",
    ]
    return row(_HEADS, cells, css="chosen" if score.chosen else "")


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
