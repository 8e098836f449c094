"""The report's tables: seeds, decisions with their scores, faults, time outside the boundary."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

from leyline import Score, limits
from tolaria.show.lives import Gain
from tolaria.show.phrases import (
    Stretch,
    cause_words,
    counted,
    gain_words,
    headline,
    milliseconds,
    stage_word,
    stretches,
)
from tolaria.show.report import svg
from tolaria.show.report.svg import escape
from tolaria.show.report.timeline import shown
from tolaria.show.view import RunView

_INTERVAL_WIDTH: Final = 150
_CLASSES: Final = {"#": "num", "~": "name"}
"""What a heading's first character says of its column: numbers, or names that may be long."""


def seeds_table(view: RunView) -> str:
    """Every life with a strip: what it was worth and why it stands as it does."""
    rows = [
        [
            escape(life.seed) + (f" (life {life.life})" if life.life > 1 else ""),
            escape(life.blueprint),
            f"{life.parameters:,}",
            _measured(life.trial),
            _measured(life.counterfactual),
            stage_word(life.stage.name),
            escape(life.cause),
        ]
        for life in shown(view.seeds)
    ]
    heads = ("~seed", "~blueprint", "#parameters", "#trial gain", "#counterfactual", "now", "cause")
    return _table(heads, rows) if rows else ""


def decisions_table(view: RunView) -> str:
    """Every decision with its cause; holds for one cause in a row are one row."""
    joined = stretches(view.decisions)
    if not joined:
        return '<p class="none">No decision was made.</p>'
    body = "".join(_decision_rows(stretch) for stretch in joined)
    return (
        f'<div class="scroll"><table>{_head(("#epoch", "decision", "cause"))}{body}</table></div>'
    )


def faults_table(view: RunView) -> str:
    """What failed and was contained, and what was refused."""
    rows = [
        [str(fault.epoch), str(fault.step), *map(escape, (fault.where, fault.what, fault.action))]
        for fault in view.faults
    ]
    rows += [
        [str(report.epoch), "", escape(report.seed), escape(report.refused), "nothing was changed"]
        for report in view.refusals
    ]
    if not rows:
        return '<p class="none">None.</p>'
    return _table(("#epoch", "#step", "~where", "what", "action"), rows)


def latency_table(view: RunView) -> str:
    """Median and 95th percentile of each part, beside its limit."""
    allowed = (limits.GATHER_MS, limits.DECIDE_MS, limits.APPLY_MS, limits.BOUNDARY_MS)
    names = ("gather", "decide", "apply", "all three")
    measured = zip(names, view.latency(50), view.latency(95), allowed, strict=True)
    rows = []
    for name, p50, p95, limit in measured:
        over = f'<span class="bad">{p95:.2f}</span>' if p95 > limit else f"{p95:.2f}"
        rows.append([name, f"{p50:.2f}", over, f"{limit:g}"])
    return _table(("part", "#p50 (ms)", "#p95 (ms)", "#limit (ms)"), rows, css="narrow")


def outside_words(view: RunView) -> str:
    """Where time went between the boundaries."""
    outside = sorted(view.outside_ms().items(), key=lambda item: -item[1])
    parts = [f"{escape(kind)} {milliseconds(ms)}" for kind, ms in outside]
    return f"Outside the boundary, over the whole run: {', '.join(parts)}." if parts else ""


def _decision_rows(stretch: Stretch) -> str:
    decision = stretch.decision
    css = "" if decision.commands else ' class="hold"'
    row = (
        f'<tr{css}><td class="num">{stretch.epochs}</td><td class="what">'
        f"{escape(headline(decision))}</td><td>{escape(cause_words(decision))}</td></tr>"
    )
    if not decision.scores:
        return row
    summary = counted(len(decision.scores), "score")
    scores = _scores_table(decision.scores)
    return (
        f'{row}<tr class="scores"><td></td><td colspan="2"><details><summary>{summary}</summary>'
        f"{scores}</details></td></tr>"
    )


def _scores_table(scores: Sequence[Score]) -> str:
    """Candidates, best first, with gain, error and what was needed drawn on one scale."""
    ends = [score.gain + sign * _known(score.gain_error) for score in scores for sign in (-2, 2)]
    ends += [score.threshold for score in scores] + [0.0]
    known = [end for end in ends if math.isfinite(end)]
    x = svg.Scale(min(known), max(known), 4, _INTERVAL_WIDTH - 4)
    ranked = sorted(scores, key=lambda score: (math.isnan(score.gain), -score.gain))
    heads = ("", "~site", "~blueprint", "#parameters", "#gain", "#needed", "", "#steps")
    rows = "".join(_score_row(heads, score, x) for score in ranked)
    note = '<p class="note">Bars: gain with two standard errors; red: what was needed.</p>'
    return f'<div class="scroll"><table>{_head(heads)}{rows}</table></div>{note}'


def _score_row(heads: Sequence[str], score: Score, x: svg.Scale) -> str:
    cells = [
        "chosen" if score.chosen else "",
        escape(score.site),
        escape(score.blueprint),
        f"{score.parameters:,}",
        _measured(Gain(score.gain, score.gain_error)),
        _measured(Gain(score.threshold)),
        _interval(score, x),
        f"{score.steps:,}",
    ]
    css = ' class="chosen"' if score.chosen else ""
    return f"<tr{css}>{_cells(heads, cells)}</tr>"


def _interval(score: Score, x: svg.Scale) -> str:
    if not math.isfinite(score.gain):
        return ""
    error = 2 * _known(score.gain_error)
    parts = [svg.line(x(0), 0, x(0), 14, "zero")]
    parts.append(svg.line(x(score.gain - error), 7, x(score.gain + error), 7, "whisker"))
    parts.append(f'<circle cx="{x(score.gain):.1f}" cy="7" r="3" />')
    if math.isfinite(score.threshold):
        parts.append(svg.line(x(score.threshold), 2, x(score.threshold), 12, "needed"))
    box = f'viewBox="0 0 {_INTERVAL_WIDTH} 14" class="interval" aria-hidden="true"'
    return f"<svg {box}>{''.join(parts)}</svg>"


def _known(error: float) -> float:
    return error if math.isfinite(error) else 0.0


def _measured(gain: Gain) -> str:
    return gain_words(gain).replace("+-", "&#177;")


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], css: str = "wide") -> str:
    """A table of cells that are markup already; see _CLASSES for its headings."""
    body = "".join(f"<tr>{_cells(heads, row)}</tr>" for row in rows)
    return f'<div class="scroll"><table class="{css}">{_head(heads)}{body}</table></div>'


def _head(heads: Sequence[str]) -> str:
    return f"<tr>{''.join(_cell('th', head, head.lstrip('#~')) for head in heads)}</tr>"


def _cells(heads: Sequence[str], cells: Sequence[str]) -> str:
    return "".join(_cell("td", head, cell) for head, cell in zip(heads, cells, strict=True))


def _cell(tag: str, head: str, content: str) -> str:
    css = _CLASSES.get(head[:1])
    return f'<{tag} class="{css}">{content}</{tag}>' if css else f"<{tag}>{content}</{tag}>"
