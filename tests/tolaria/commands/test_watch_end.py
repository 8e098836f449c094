"""When `esper watch` ends, also if the run itself never says so."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

import leyline
import oona
from oona.servers.embedded import EmbeddedServer
from tolaria.commands.watch import watch_run
from tolaria.disk.run import RunDirectory

STARTED = leyline.RunStarted(
    run_id="killed", epoch=0, num_epochs=3, host_parameters=1, model="Net", resumed=False
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(tmp_path / "server.log")
    yield server
    server.stop()


def _leave_unended(run_dir: Path, url: str, *, age_s: float = 0.0) -> None:
    """What a killed run leaves on a server that outlives it."""
    with RunDirectory.create(run_dir, now=datetime.now(tz=UTC)) as run:
        wall_ns = time.time_ns() - int(age_s * 1e9)
        with oona.Bus.open(run.path, "killed", url, wall_ns=lambda: wall_ns) as bus:
            assert bus.offer(STARTED)


def test_a_killed_run_s_directory_is_watched_to_its_last_event(
    tmp_path: Path, server: EmbeddedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody holds the run, so nothing more can come: it is shown, and called killed."""
    _leave_unended(tmp_path / "run", server.url)
    watch_run(str(tmp_path / "run"))
    told = capsys.readouterr().out
    assert "Net, 1 parameters" in told
    assert told.splitlines()[-1].endswith(": killed")


def test_a_server_that_cannot_be_read_is_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the outbox holds is shown, and that it is not all there may be."""
    _leave_unended(tmp_path / "run", "redis://127.0.0.1:9/0")
    watch_run(str(tmp_path / "run"))
    told = capsys.readouterr().out
    assert "Net, 1 parameters" in told
    assert "the run's server was not read: redis://127.0.0.1:9/0" in told


def test_a_server_whose_runs_are_silent_is_not_watched_for_ever(
    tmp_path: Path, server: EmbeddedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run without an end that was last heard ten minutes ago is taken for dead."""
    _leave_unended(tmp_path / "run", server.url, age_s=601.0)
    watch_run(server.url)
    assert "Net, 1 parameters" in capsys.readouterr().out


def test_an_envelope_just_heard_keeps_the_watch_going(
    tmp_path: Path, server: EmbeddedServer
) -> None:
    """A reader that may still hear something waits for it; told that there is nothing, it ends."""
    _leave_unended(tmp_path / "run", server.url)
    num_asked = 0

    def is_live() -> bool:
        nonlocal num_asked
        num_asked += 1
        return num_asked < 3

    assert len(list(oona.read(server.url, follow=True, is_live=is_live))) == 1
    assert num_asked == 3
