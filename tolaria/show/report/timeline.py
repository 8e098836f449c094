"""Each seed's way through the stages as a strip, with its alpha below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from leyline import Stage
from tolaria.show.lives import SeedLife
from tolaria.show.phrases import counted, stage_word
from tolaria.show.report import svg
from tolaria.show.report.charts import WIDTH, epoch_axis

_LEFT: Final = 236
_RIGHT: Final = 124
"""Margin for the name of what ended a life at the last epoch."""
_STRIP_HEIGHT: Final = 18
_ALPHA_HEIGHT: Final = 24
_ROW_HEIGHT: Final = 66
_TOP: Final = 8
_NAME_CHARS: Final = 26
_REMOVED: Final = (Stage.CULLED, Stage.ROLLED_BACK)
_STAGES: Final = tuple(stage for stage in Stage if stage not in (Stage.DORMANT, Stage.CANCELLED))
"""Stages that a strip can show: candidates that were cancelled get no strip."""


def timeline(lives: Sequence[SeedLife], last_epoch: int) -> str:
    """One row per life: its name, its strip of stages and its alpha."""
    if not lives:
        return '<p class="none">No seed has touched the network.</p>'
    x = svg.Scale(0, max(last_epoch, 1), _LEFT, WIDTH - _RIGHT)
    bottom = _TOP + len(lives) * _ROW_HEIGHT
    parts = [
        svg.line(x(tick), _TOP, x(tick), bottom, "grid")
        for tick in svg.whole_ticks(0, int(x.high), 10)
    ]
    for row, life in enumerate(lives):
        parts += _row(life, x, _TOP + row * _ROW_HEIGHT, last_epoch)
    parts += epoch_axis(x, bottom)
    return svg.figure(WIDTH, bottom + 42, "stages and alpha of each seed", parts)


def _row(life: SeedLife, x: svg.Scale, top: float, last_epoch: int) -> list[str]:
    number = f", life {life.life}" if life.life > 1 else ""
    name = svg.shorten(life.seed, _NAME_CHARS - len(number)) + number
    size = f"{svg.shorten(life.blueprint, 16)}, {life.parameters:,}"
    parts = [
        svg.text(_LEFT - 28, top + 14, name, anchor="end", css="name"),
        svg.text(_LEFT - 28, top + 30, f"{size} params", anchor="end", css="tick"),
    ]
    for span in life.spans(last_epoch):
        parts += _segment(life, span.stage, span.start, span.end, x, top)
    return parts + _alpha(life, x, top + _STRIP_HEIGHT + 4, last_epoch)


def _segment(
    life: SeedLife, stage: Stage, start: int, end: int, x: svg.Scale, top: float
) -> list[str]:
    """One stage; an end that frees the place is a short stop, not a stretch."""
    word = stage_word(stage.name)
    removed = stage in _REMOVED
    width = 6.0 if removed else x(end) - x(start)
    if width <= 0:
        return []
    words = f"{life.seed}: {word} after epoch {start}" + ("" if removed else f" to {end}")
    parts = [svg.rect(x(start), top, width, _STRIP_HEIGHT, f"stage s{stage.value}", words)]
    if removed:
        parts.append(svg.text(x(start) + 11, top + 13, f"{word}, epoch {start}", css="label"))
    elif len(word) * svg.CHAR_WIDTH + 8 <= width:
        middle = x(start) + width / 2
        parts.append(svg.text(middle, top + 13, word, anchor="middle", css=f"in s{stage.value}"))
    return parts


def _alpha(life: SeedLife, x: svg.Scale, top: float, last_epoch: int) -> list[str]:
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
    y = svg.Scale(0, 1, top + _ALPHA_HEIGHT, top)
    line = [(x(epoch), y(alpha)) for epoch, alpha in by_epoch.items()]
    area = [(line[0][0], y(0)), *line, (line[-1][0], y(0))]
    left = line[0][0]
    return [
        svg.polyline(area, "alpha-area"),
        svg.polyline(line, "alpha"),
        svg.text(left - 5, y(1) + 8, "1", anchor="end", css="tick small"),
        svg.text(left - 5, y(0), "0", anchor="end", css="tick small"),
        svg.text(left - 16, y(0.5) + 4, "alpha", anchor="end", css="tick small"),
    ]


def shown(lives: Sequence[SeedLife]) -> list[SeedLife]:
    """The lives worth a strip: those that touched the network, or were put out for a fault."""
    return [life for life in lives if life.touched_host or life.stage in _REMOVED]


def legend() -> str:
    """The colour and name of every stage a strip can show."""
    items = "".join(
        f'<li><span class="swatch s{stage.value}"></span>{stage_word(stage.name)}</li>'
        for stage in _STAGES
    )
    return f'<ul class="legend">{items}</ul>'


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
