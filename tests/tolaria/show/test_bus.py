"""What the bus says of itself, in every place that shows a run."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from leyline import BusReport, Event, RunEnded, StepMetrics
from oona import Bus
from tests.tolaria.show.events import started
from tolaria.commands.inspection import inspect_run
from tolaria.commands.watch import watch_run
from tolaria.disk.run import RunDirectory
from tolaria.show.plain import view_dict
from tolaria.show.terminal import Terminal
from tolaria.show.view import RunView

NOW = datetime(2026, 1, 2, tzinfo=UTC)
WELL = BusReport(
    epoch=1,
    offered=1200,
    delivered=1180,
    dropped=0,
    queued=20,
    dropped_by_type={},
    latency_ms={"send": (0.21, 0.45, 1.1), "connect": (3.0, 3.0, 3.0)},
)
FLOODED = msgspec.structs.replace(
    WELL,
    epoch=2,
    dropped=12,
    dropped_by_type={"StatePacket": 2, "[red]StepMetrics\x1b": 10, "Fault": 0},
)
LINE = (
    "bus after epoch 2: 1,200 offered  1,180 delivered  12 dropped  20 queued; "
    "dropped 10 [red]StepMetrics\ufffd, 2 StatePacket; "
    "p50/p95/p99 ms: connect 3.00/3.00/3.00, send 0.21/0.45/1.10"
)
ENDED = RunEnded(run_id="r", epoch=2, status="finished", parameters=9, metrics={})


def shown(events: list[Event], *, is_terminal: bool) -> str:
    console = Console(file=StringIO(), force_terminal=is_terminal, width=120, color_system=None)
    with Terminal(console) as terminal:
        for event in events:
            terminal.apply(event)
        terminal.refresh()
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_drops_are_said_when_there_are_more() -> None:
    """Plain output is silent on a bus that is well, says what it dropped, and that only once."""
    quiet = shown([started(), WELL, WELL], is_terminal=False)
    assert "bus" not in quiet
    assert "dropped" not in quiet
    said = shown([started(), WELL, FLOODED, FLOODED], is_terminal=False)
    assert said.count("events dropped") == 1
    assert "epoch 2: events dropped: 10 [red]StepMetrics\ufffd, 2 StatePacket\n" in said


def test_the_live_table_has_the_ledger_and_the_percentiles() -> None:
    """Who reads the bus sees its ledger and latencies as it last told of them, a row for each."""
    drawn = shown([started(), WELL], is_terminal=True)
    assert " bus         1,200 offered  1,180 delivered  0 dropped  20 queued " in drawn
    assert " bus took    p50/p95/p99 ms: connect 3.00/3.00/3.00, send 0.21/0.45/1.10 " in drawn


def test_the_newest_report_is_shown() -> None:
    """An earlier report that arrives late changes nothing; a resumed run forgets those it undoes;
    as plain values they are all there."""
    view = RunView()
    for event in (started(), FLOODED, WELL):
        view.apply(event)
    assert view.bus == FLOODED
    assert view_dict(view)["bus_report"]["latency_ms"]["send"] == [0.21, 0.45, 1.1]
    view.apply(started(epoch=1, resumed=True))
    assert view.bus is None


def test_watch_ends_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`esper watch` prints the last report on one line before what became of the run."""
    path = tmp_path / "run"
    with (
        RunDirectory.create(path, now=NOW) as run,
        Bus.open(path, run.run_id, "unix:///nowhere/bus.sock") as bus,
    ):
        for event in (started(run_id=run.run_id), WELL, FLOODED, ENDED):
            assert bus.offer(event)
    watch_run(str(path))
    bus, unread, end = capsys.readouterr().out.splitlines()[-3:]
    assert (bus, end) == (LINE, f"{path}: finished")
    assert unread.startswith("the run's server was not read: unix:///nowhere/bus.sock")


def test_inspect_says_what_was_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`esper inspect` has the drops by type from the ledger on the disk, as words and as JSON; of
    a bus that dropped nothing it has no such line."""
    path = tmp_path / "run"
    with (
        RunDirectory.create(path, now=NOW) as run,
        Bus.open(path, run.run_id, "unix:///nowhere/bus.sock", ring_size_bytes=4096) as bus,
    ):
        assert bus.offer(started(run_id=run.run_id))
        inspect_run(path, as_json=False)
        assert "\ndropped: " not in capsys.readouterr().out
        while bus.offer(StepMetrics(step=1, loss=0.5)):
            pass
    inspect_run(path, as_json=False)
    assert "\ndropped: 1 StepMetrics\n" in capsys.readouterr().out
    inspect_run(path, as_json=True)
    assert json.loads(capsys.readouterr().out)["bus"]["dropped_by_type"] == {"StepMetrics": 1}
