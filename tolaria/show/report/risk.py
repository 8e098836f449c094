"""The level of risk over the epochs, as a strip of colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from leyline import RiskChanged, RiskLevel
from tolaria.show.health import level_name, risk_why
from tolaria.show.report import svg
from tolaria.show.report.axes import AXIS_HEIGHT, epoch_axis, epoch_scale


class _Stretch(NamedTuple):
    """A stretch of epochs at one level."""

    level: int
    start: int
    end: int
    why: str


def risk_strip(changes: Sequence[RiskChanged], last_epoch: int) -> str:
    """A stretch for each level there was, with its causes as a tooltip; empty if none changed."""
    if not changes:
        return ""
    x = epoch_scale(last_epoch)
    strip = "".join(_segment(stretch, x) for stretch in _stretches(changes, last_epoch))
    axis = svg.plot(AXIS_HEIGHT, "epochs", epoch_axis(x, 0.5))
    levels = "".join(
        f'<li><span class="swatch r{level.value}"></span>{level_name(level)}</li>'
        for level in RiskLevel
    )
    return (
        f'<ul class="legend">{levels}</ul><div class="lives"><div class="life">'
        f'<p class="who"><b>level of risk</b> <span>{level_name(changes[-1].now)} after epoch '
        f'{changes[-1].epoch}</span></p><div class="track risk">{strip}</div></div>'
        f'<div class="life"><p class="who"></p>{axis}</div></div>'
    )


def _stretches(changes: Sequence[RiskChanged], last_epoch: int) -> list[_Stretch]:
    known = [_Stretch(changes[0].was, 0, changes[0].epoch, "")]
    for number, change in enumerate(changes):
        end = changes[number + 1].epoch if number + 1 < len(changes) else last_epoch
        known.append(_Stretch(change.now, change.epoch, max(change.epoch, end), risk_why(change)))
    return known


def _segment(stretch: _Stretch, x: svg.Scale) -> str:
    """One level; a level that was left at the boundary that brought it has no width."""
    if stretch.end <= stretch.start:
        return ""
    name = level_name(stretch.level)
    why = f": {stretch.why}" if stretch.why else ""
    title = svg.escape(f"{name}, epochs {stretch.start} to {stretch.end}{why}")
    width = svg.percent(x(stretch.end) - x(stretch.start))
    place = f"left:{svg.percent(x(stretch.start))};width:{width}"
    css = f"stage r{min(max(stretch.level, 0), max(RiskLevel))}"
    return f'<span class="{css}" style="{place}" title="{title}"><b>{name}</b></span>'
