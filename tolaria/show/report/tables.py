"""The report's tables: seeds, decisions with their scores, faults, time outside the boundary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from leyline import limits
from tolaria.show.health import (
    alert_head,
    alert_why,
    breaker_head,
    breaker_why,
    risk_action,
    risk_causes,
    risk_head,
)
from tolaria.show.phrases import (
    Stretch,
    cause_words,
    counted,
    headline,
    life_name,
    life_words,
    milliseconds,
    stage_word,
    stretches,
)
from tolaria.show.report.cells import head_row, measured, prose, row, table
from tolaria.show.report.scores import scores_table
from tolaria.show.report.svg import escape
from tolaria.show.report.timeline import shown
from tolaria.show.view import RunView

_SEED_HEADS: Final = (
    "~seed",
    "=blueprint",
    "#parameters",
    "#trial gain",
    "#counterfactual",
    "=now",
    "cause",
)


def seeds_table(view: RunView) -> str:
    """Every life with a strip: what it was worth and why it stands as it does."""
    rows = [
        [
            escape(life_name(life)),
            escape(life.blueprint),
            f"{life.parameters:,}",
            measured(life.trial),
            measured(life.counterfactual),
            stage_word(life.stage.name),
            prose(life.cause),
        ]
        for life in shown(view.seeds)
    ]
    if not rows:
        return ""
    note = (
        f"{life_words(shown(view.seeds))}. Trial gain: by how much its trial lowered the held-out "
        "loss, with one standard error. Counterfactual: by how much the loss on the same "
        "validation batches rises when the seed is switched off."
    )
    return f'{_plain(_SEED_HEADS, rows)}<p class="note">{escape(note)}</p>'


def decisions_table(view: RunView) -> str:
    """Every decision with its cause; holds for one cause in a row are one row."""
    joined = stretches(view.decisions)
    if not joined:
        return '<p class="none">No decision was made.</p>'
    heads = head_row(("#epoch", "decision", "cause"))
    body = "".join(_decision_rows(stretch) for stretch in joined)
    return f'<table class="log">{heads}<tbody>{body}</tbody></table>'


def faults_table(view: RunView) -> str:
    """What failed and was contained, what was refused, breakers, alerts and risk, by epoch."""
    rows = [
        [str(fault.epoch), str(fault.step), *map(escape, (fault.where, fault.what, fault.action))]
        for fault in view.faults
    ]
    rows += [
        [str(report.epoch), "-", escape(report.seed), escape(report.refused), "nothing was changed"]
        for report in view.refusals
    ]
    rows += [
        [str(c.epoch), str(c.step), escape(breaker_head(c)), escape(breaker_why(c)), "-"]
        for c in view.breaker_changes
    ]
    rows += [
        [str(a.epoch), "-", escape(alert_head(a)), escape(alert_why(a)), "-"] for a in view.alerts
    ]
    rows += [
        [
            str(r.epoch),
            str(r.step),
            *map(escape, (risk_head(r), risk_causes(r), risk_action(r))),
        ]
        for r in view.risk_changes
    ]
    rows.sort(key=lambda cells: int(cells[0]))
    if not rows:
        return '<p class="none">None.</p>'
    return _plain(("#epoch", "#step", "~where", "what", "action"), rows)


def latency_table(view: RunView) -> str:
    """Median and 95th percentile of each part, beside its limit."""
    allowed = (limits.GATHER_MS, limits.DECIDE_MS, limits.APPLY_MS, limits.BOUNDARY_MS)
    names = ("gather", "decide", "apply", "all three")
    counts = view.num_over_limit(allowed)
    parts = zip(names, view.latency(50), view.latency(95), allowed, counts, strict=True)
    rows = []
    for name, p50, p95, limit, num_over in parts:
        over = f'<span class="bad">{p95:.2f}</span>' if p95 > limit else f"{p95:.2f}"
        rows.append([name, f"{p50:.2f}", over, f"{limit:g}", str(num_over)])
    heads = ("part", "#p50 (ms)", "#p95 (ms)", "#limit (ms)", "#times over")
    return _plain(heads, rows, css="narrow")


def outside_words(view: RunView) -> str:
    """Where time went between the boundaries."""
    outside = sorted(view.outside_ms().items(), key=lambda item: -item[1])
    parts = [f"{escape(kind)} {milliseconds(ms)}".replace(" ", "&#160;") for kind, ms in outside]
    return f"Outside the boundary, over the whole run: {', '.join(parts)}." if parts else ""


def _plain(heads: Sequence[str], rows: Iterable[Sequence[str]], css: str = "cards") -> str:
    return table(heads, [row(heads, cells) for cells in rows], css=css)


def _decision_rows(stretch: Stretch) -> str:
    decision = stretch.decision
    css = " ".join(["hold"] * (not decision.commands) + ["raced"] * bool(decision.scores))
    after = f"then: {prose(decision.next_step)}" if decision.next_step else ""
    following = f'<span class="then">{after}</span>' if after else ""
    said = (
        f'<tr class="{css}"><td class="num">{stretch.epochs}</td><td class="what">'
        f"{escape(headline(decision))}</td><td>{prose(cause_words(decision))}{following}</td></tr>"
    )
    if not decision.scores:
        return said
    summary = counted(len(decision.scores), "score")
    scores = scores_table(decision.scores)
    return (
        f'{said}<tr class="scores"><td></td><td colspan="2"><details><summary>{summary}</summary>'
        f"{scores}</details></td></tr>"
    )
