"""Each seed's way through the stages as a strip, with its alpha below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from leyline import Stage
from tolaria.show.lives import SeedLife, Span
from tolaria.show.phrases import counted, life_name, stage_word
from tolaria.show.report import svg
from tolaria.show.report.axes import AXIS_HEIGHT, epoch_axis, epoch_grid, epoch_scale

_STRIP_HEIGHT: Final = 18
"""As .strip has it in the style sheet."""
_ALPHA_HEIGHT: Final = 24
_TRACK_HEIGHT: Final = 62
_REMOVED: Final = (Stage.CULLED, Stage.ROLLED_BACK)
_STAGES: Final = tuple(stage for stage in Stage if stage not in (Stage.DORMANT, Stage.CANCELLED))
"""Stages that a strip can show: candidates that were cancelled get no strip."""


def timeline(lives: Sequence[SeedLife], last_epoch: int) -> str:
    """One row per life: its name, its strip of stages and its alpha."""
    if not lives:
        return '<p class="none">No seed has touched the network.</p>'
    x = epoch_scale(last_epoch)
    rows = "".join(_row(life, x, last_epoch) for life in lives)
    axis = svg.plot(AXIS_HEIGHT, "epochs", epoch_axis(x, 0.5))
    return f'<div class="lives">{rows}<div class="life"><p class="who"></p>{axis}</div></div>'


def _row(life: SeedLife, x: svg.Scale, last_epoch: int) -> str:
    name = svg.escape(life_name(life))
    what = f"{svg.escape(life.blueprint)}, {life.parameters:,} params"
    spans = life.spans(last_epoch)
    since = f"{stage_word(life.stage.name)} after epoch {spans[-1].start}" if spans else ""
    who = f'<p class="who"><b>{name}</b> <span>{what}</span> <span>{since}</span></p>'
    parts = [*epoch_grid(x, 0, _TRACK_HEIGHT), *_alpha(life, x, last_epoch)]
    drawing = svg.plot(_TRACK_HEIGHT, f"alpha of {life_name(life)}", parts)
    strip = "".join(_segment(life, span, x) for span in spans)
    return f'<div class="life">{who}<div class="track">{drawing}{strip}</div></div>'


def _segment(life: SeedLife, span: Span, x: svg.Scale) -> str:
    """One stage; an end that frees the place is a short stop, not a stretch."""
    word, css = stage_word(span.stage.name), f"stage s{span.stage.value}"
    title = f"{life.seed}: {word} after epoch {span.start}"
    place = f"left:{svg.percent(x(span.start))}"
    if span.stage in _REMOVED:
        return f'<span class="{css} end" style="{place}" title="{svg.escape(title)}"></span>'
    if span.end <= span.start:
        return ""
    place += f";width:{svg.percent(x(span.end) - x(span.start))}"
    title = svg.escape(f"{title} to {span.end}")
    return f'<span class="{css}" style="{place}" title="{title}"><b>{word}</b></span>'


def _alpha(life: SeedLife, x: svg.Scale, last_epoch: int) -> list[str]:
    """The blend weight as an area between 0 and 1; nothing where it never blended."""
    if not life.touched_host:
        return []
    removed = [life.epoch_of(stage) for stage in _REMOVED if stage in life.path]
    last = next((epoch for epoch in removed if epoch is not None), last_epoch)
    graft = life.epoch_of(Stage.GRAFTING) or life.first_epoch
    points = [(mark.epoch, mark.alpha) for mark in life.marks]
    points += [(report.epoch, report.alpha) for report in life.transitions]
    by_epoch = dict(sorted(point for point in points if graft <= point[0] <= last))
    if not by_epoch:
        return []
    by_epoch[last] = by_epoch[max(by_epoch)]
    top = _STRIP_HEIGHT + 6
    y = svg.Scale(0, 1, top + _ALPHA_HEIGHT, top)
    line = [(x(epoch), y(alpha)) for epoch, alpha in by_epoch.items()]
    area = [(line[0][0], y(0)), *line, (line[-1][0], y(0))]
    parts = [svg.polyline(area, "alpha-area"), svg.polyline(line, "alpha")]
    return [svg.stretched(_TRACK_HEIGHT, parts)]


def shown(lives: Sequence[SeedLife]) -> list[SeedLife]:
    """The lives worth a strip: those that touched the network, or were put out for a fault."""
    return [life for life in lives if life.touched_host or life.stage in _REMOVED]


def legend() -> str:
    """The colour and name of every stage a strip can show."""
    items = "".join(
        f'<li><span class="swatch s{stage.value}"></span>{stage_word(stage.name)}</li>'
        for stage in _STAGES
    )
    alpha = '<li><span class="swatch blend"></span>alpha, 0 to 1, below its strip</li>'
    return f'<ul class="legend">{items}{alpha}</ul>'


def cancelled_words(lives: Sequence[SeedLife]) -> str:
    """What became of the candidates without a strip."""
    cancelled = [life for life in lives if life.stage == Stage.CANCELLED]
    if not cancelled:
        return ""
    epochs = {life.epoch_of(Stage.GERMINATED) for life in cancelled}
    return (
        f"{counted(len(cancelled), 'more candidate')} from {counted(len(epochs), 'race')} "
        "ended before touching the network; the decisions below hold their scores."
    )
