"""The bus's breaker in a run: a server that dies and comes back, seen in every place."""

from __future__ import annotations

import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from leyline import BreakerChange
from oona import count_delivered
from tests.oona.faults.place import Place
from tests.tolaria.plain_loops import adam, attach, faults, listen, make_host, run
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria import Orchestrator
from tolaria.commands.inspection import inspect_run
from tolaria.show.terminal import Terminal


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.kill()


def _try_until(esper: Orchestrator, state: str) -> None:
    """Have the publisher try, without waiting for its pauses, until its breaker is so."""
    deadline_s = time.monotonic() + 20.0
    while esper.session.bus.health()[0] != state:
        assert time.monotonic() < deadline_s
        esper.session.bus.flush(0.02)


def test_a_server_that_dies_and_comes_back_is_told_of_at_the_boundaries(
    tmp_path: Path, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed, the next boundary tells that the bus's breaker is open and why; that stands in the
    live table; with a server at its address again it is told closed, everything is delivered, no
    boundary was lost, and report and `inspect` have both changes."""
    model = make_host()
    optimizer = adam(model)
    terminal = Terminal(Console(file=StringIO(), force_terminal=True, width=200))
    settings = {"policy": "hold", "telemetry": place.url}
    with terminal, attach(model, optimizer, tmp_path / "run", **settings) as esper:
        events = listen(esper)
        esper.session.recorder.listeners.append(terminal.apply)
        run(model, optimizer, esper, 1)
        assert esper.session.bus.flush(10.0)
        place.kill()
        esper.session.record(events[-1])
        _try_until(esper, "open")
        run(model, optimizer, esper, 2)
        shown = Console(file=StringIO(), width=200)
        shown.print(terminal._table())
        assert "bus open, server unreachable" in shown.file.getvalue()  # type: ignore[attr-defined] # a StringIO
        place.start()
        _try_until(esper, "closed")
        run(model, optimizer, esper, 1)
        assert faults(events) == []
        assert esper.epoch == 4
        assert esper.session.bus.flush(10.0)
        delivered = esper.session.bus.statistics().delivered
        assert count_delivered(place.url, esper.session.run.run_id) == delivered
    changes = [event for event in events if isinstance(event, BreakerChange)]
    assert [(c.name, c.was, c.now, c.epoch) for c in changes] == [
        ("bus", "closed", "open", 1),
        ("bus", "open", "closed", 3),
    ]
    assert "breaker bus open" in (tmp_path / "run" / "report.html").read_text()
    inspect_run(tmp_path / "run", as_json=False)
    told = capsys.readouterr().out
    assert "breaker bus open: server unreachable" in told
    assert "epoch 3: breaker bus closed" in told
