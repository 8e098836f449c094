"""Breakers and latency alerts, in every place that shows a run."""

from __future__ import annotations

from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from leyline import BreakerChange, Decision, Event, LatencyAlert, RunStarted
from oona import Bus
from tolaria.commands.inspection import inspect_run
from tolaria.disk.run import RunDirectory
from tolaria.recorder import Recorder
from tolaria.show.health import health_lines
from tolaria.show.plain import view_dict
from tolaria.show.report.page import render
from tolaria.show.terminal import Terminal
from tolaria.show.view import RunView


def _change(epoch: int, was: str, now: str) -> BreakerChange:
    return BreakerChange(
        epoch=epoch,
        step=epoch * 4,
        name="policy",
        was=was,
        now=now,
        why="ZeroDivisionError: <a bug>",
        hold=10.0 if now == "open" else 0.0,
        unit="boundaries",
    )


def _alert(epoch: int, *, resolved: bool) -> LatencyAlert:
    return LatencyAlert(
        epoch=epoch,
        part="apply",
        p95_ms=12.5,
        limit_ms=10.0,
        num_boundaries=20,
        resolved=resolved,
    )


NOW = datetime(2026, 1, 2, tzinfo=UTC)
ILL: tuple[Event, ...] = (_change(3, "closed", "open"), _alert(4, resolved=False))
WELL: tuple[Event, ...] = (
    _change(14, "open", "half-open"),
    _change(14, "half-open", "closed"),
    _alert(15, resolved=True),
)


def _started(epoch: int, *, resumed: bool) -> RunStarted:
    return RunStarted(
        run_id="r", epoch=epoch, num_epochs=20, host_parameters=9, model="M", resumed=resumed
    )


def _view(*events: Event) -> RunView:
    view = RunView()
    for event in events:
        view.apply(event)
    return view


def test_the_view_knows_what_stands_and_what_is_over() -> None:
    """An open breaker and an alert stand until they end; each event is kept once."""
    view = _view(*ILL, *ILL)
    assert view.breakers["policy"].now == "open"
    assert [alert.part for alert in view.standing_alerts] == ["apply"]
    view = _view(*ILL, *WELL)
    assert view.breakers["policy"].now == "closed"
    assert view.standing_alerts == []
    told = view_dict(view)
    assert [change["now"] for change in told["breakers"]] == ["open", "half-open", "closed"]
    assert [alert["resolved"] for alert in told["latency_alerts"]] == [False, True]


def test_a_resumed_run_shows_the_breakers_of_its_own_past() -> None:
    """What opened after the epoch it goes on from is forgotten; times are measured anew."""
    view = _view(*ILL, _started(3, resumed=True))
    assert (list(view.breakers), view.alerts) == (["policy"], [])
    assert _view(*ILL, _started(2, resumed=True)).breakers == {}


@pytest.mark.parametrize("is_terminal", [False, True])
def test_the_terminal_says_each_once_and_shows_what_stands(is_terminal: bool) -> None:
    """One line for each change; the live table has a row while something is wrong, and then not."""
    out = StringIO()
    console = Console(file=out, force_terminal=is_terminal, width=160)
    with Terminal(console) as terminal:
        for event in ILL:
            terminal.apply(event)
        assert "breaker policy open" in out.getvalue()
        assert "held for 10 boundaries" in out.getvalue()
        assert "apply over its limit" in out.getvalue()
        table = Console(file=StringIO(), width=200)
        table.print(terminal._table())
        shown = table.file.getvalue()  # type: ignore[attr-defined] # a StringIO
        assert "health" in shown
        assert "apply slow, p95 12.50 ms of the last 20, limit 10 ms" in shown
        for event in WELL:
            terminal.apply(event)
        assert "apply back within its limit" in out.getvalue()
        table = Console(file=StringIO(), width=200)
        table.print(terminal._table())
        assert "health" not in table.file.getvalue()  # type: ignore[attr-defined] # a StringIO


def test_report_and_inspect_list_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both read the journal: every change with its cause, escaped in the page."""
    path = tmp_path / "run"
    with RunDirectory.create(path, now=NOW) as run, Bus.open(path, run.run_id, "off") as bus:
        recorder = Recorder(run.journal, bus, run.run_id)
        for event in (_started(0, resumed=False), *ILL):
            recorder.record(event)
        recorder.close()
        page = render(recorder.view)
    assert "breaker policy open" in page
    assert "ZeroDivisionError: &lt;a bug&gt;; held for 10 boundaries" in page
    assert "boundary: apply over its limit" in page
    inspect_run(path, as_json=False)
    text = capsys.readouterr().out
    assert "epoch 3: breaker policy open: ZeroDivisionError: <a bug>" in text
    assert "epoch 4: boundary: apply over its limit: p95 12.50 ms" in text


def test_boundaries_that_the_policy_lost_are_counted() -> None:
    """Late answers and failed boundaries, each by itself; nothing is said where there are none."""
    view = RunView()
    for epoch, lost in enumerate(({}, {"late": True}, {"undone": "decide"}, {"late": True}), 1):
        assert ("growth was held" in "".join(health_lines(view))) == (epoch > 2)
        view.apply(Decision(epoch=epoch, policy="mine", cause="", **lost))
    assert health_lines(view) == ["growth was held at 2 late and 1 failed boundaries"]
