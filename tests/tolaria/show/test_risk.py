"""The level of risk on the terminal, in inspect and in the report."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from typing import Any

import msgspec
import pytest
from rich.console import Console

import leyline
from leyline import Event, RiskLevel
from tests.tolaria.show.events import a_run, started
from tests.tolaria.show.test_report import of_class, parsed
from tolaria.show.health import health_lines, health_words, risk_action
from tolaria.show.report.page import render
from tolaria.show.terminal import Terminal
from tolaria.show.view import RunView


def change(epoch: int, was: int, now: int, *causes: str) -> leyline.RiskChanged:
    return leyline.RiskChanged(epoch=epoch, step=epoch * 45, was=was, now=now, causes=causes)


RISEN = change(6, RiskLevel.GREEN, RiskLevel.YELLOW, "3 values stood out", "the worst 9 times")
HIGHER = change(9, RiskLevel.YELLOW, RiskLevel.RED, "a value is not finite")
FALLEN = change(12, RiskLevel.RED, RiskLevel.ORANGE, "calm for 2 boundaries")
CALM = change(20, RiskLevel.ORANGE, RiskLevel.GREEN, "calm")


def view_of(*events: Event) -> RunView:
    view = RunView()
    for event in events:
        view.apply(event)
    return view


def test_a_level_is_told_with_its_causes_and_what_it_allows() -> None:
    """It stands beside the breakers until all is green again; each change has a line."""
    assert health_words(view_of(RISEN, HIGHER)) == (
        "risk red since epoch 9, a value is not finite -> alpha stands, nothing is planted, "
        "no graft begins or settles"
    )
    assert health_words(view_of(RISEN, HIGHER, FALLEN, CALM)) == ""
    assert health_lines(view_of(HIGHER, RISEN)) == [
        "epoch 6: risk rises from green to yellow: 3 values stood out; the worst 9 times -> alpha "
        "moves in one of 2 steps",
        "epoch 9: risk rises from yellow to red: a value is not finite -> alpha stands, nothing "
        "is planted, no graft begins or settles",
    ]


@pytest.mark.parametrize("is_terminal", [False, True])
def test_the_terminal_says_each_change_once(is_terminal: bool) -> None:
    """One line when it rises and one when it falls."""
    out = io.StringIO()
    with Terminal(Console(file=out, force_terminal=is_terminal, width=200)) as terminal:
        for event in (RISEN, HIGHER, FALLEN):
            terminal.apply(event)
    assert out.getvalue().count("risk rises from green to yellow") == 1
    assert out.getvalue().count("risk falls from red to orange") == 1


def test_a_resumed_run_forgets_the_risk_that_followed() -> None:
    """The levels of its own past stay."""
    view = view_of(RISEN, HIGHER, started(epoch=6, resumed=True))
    assert [known.epoch for known in view.risk_changes] == [6]


def segments(events: list[Event]) -> list[tuple[str, str]]:
    """Each stretch of the report's strip: where it lies, and its tooltip."""
    (track,) = of_class(parsed(render(view_of(*events))), "risk")
    return [(s.get("style") or "", s.get("title") or "") for s in track]


def test_the_report_shows_the_levels_over_the_epochs() -> None:
    """A stretch for each level from where it began to where it ended, with its causes; a run that
    was green throughout has no strip."""
    strip = segments([*a_run(), RISEN, HIGHER, FALLEN, CALM])
    assert [title.partition(",")[0] for _, title in strip] == [
        "green",
        "yellow",
        "red",
        "orange",
        "green",
    ]
    assert strip[1] == (
        "left:20.000%;width:10.000%",
        "yellow, epochs 6 to 9: 3 values stood out; the worst 9 times -> alpha moves in one of "
        "2 steps",
    )
    assert not of_class(parsed(render(view_of(*a_run()))), "risk")


def test_every_level_s_action_is_in_the_report() -> None:
    """The row of a change says what the level allows."""
    for level in RiskLevel:
        told = change(3, 0, level, "x")
        page: ET.Element = parsed(render(view_of(told)))
        cells: list[Any] = ["".join(cell.itertext()) for cell in page.iter("td")]
        assert risk_action(told) in cells
    assert risk_action(change(3, 0, 99, "x")) == "unknown here"


def test_what_slows_nothing_is_not_said_to() -> None:
    """A level that a clock alone has raised leaves alpha's pace as it is, and the words say so."""
    told = msgspec.structs.replace(RISEN, pace=int(RiskLevel.GREEN))
    assert risk_action(told) == "all goes on as usual"
    told = msgspec.structs.replace(HIGHER, pace=int(RiskLevel.YELLOW))
    assert risk_action(told).startswith("alpha moves in one of 2 steps, nothing is planted")
