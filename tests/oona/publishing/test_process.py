"""The publisher in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import leyline
import oona
from oona.outbox import file as outbox_file
from oona.outbox.outbox import Outbox
from tests.oona.test_bus import EPOCH, NOWHERE, STEP, assert_exact, fault


def publisher_pid(bus: oona.Bus) -> int:
    assert bus._parts is not None
    pid = bus._parts.publisher.pid  # type: ignore[union-attr] # the process is what is tested
    assert isinstance(pid, int)
    return pid


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_delivers_everything_and_tells_how_it_is(tmp_path: Path, oona_url: str) -> None:
    """Every event arrives, in order; state, counts and latencies come back from the process."""
    with oona.Bus.open(tmp_path, "run", oona_url, publisher="process") as bus:
        pid = publisher_pid(bus)
        events = [fault(1), STEP, EPOCH] * 300
        assert all(bus.offer(event) for event in events)
        assert bus.flush(20.0)
        statistics = bus.statistics()
        assert_exact(statistics)
        assert (statistics.delivered, statistics.state) == (900, "delivering")
        assert statistics.operations["send"].count >= 1
        assert [envelope.event for envelope in oona.read(oona_url)] == events
    assert bus.statistics().state == "closed"
    assert not Path(f"/proc/{pid}").exists(), "it ends with the bus"


def test_it_says_that_the_server_is_away_and_shows_no_password(tmp_path: Path) -> None:
    """Its breaker opens and its words come back; its command line has no password."""
    url = "redis://me:secret@127.0.0.1:9"
    with oona.Bus.open(tmp_path, "run", url, publisher="process") as bus:
        assert bus.offer(STEP)
        wait_until(lambda: bus.health()[0] == "open")
        assert bus.health()[1].startswith("server unreachable: redis://me:***@127.0.0.1:9")
        command = Path(f"/proc/{publisher_pid(bus)}/cmdline").read_bytes()
        assert b"secret" not in command
        before = time.monotonic()
        bus.close(timeout_s=1.0)
        assert time.monotonic() - before < 4.0
    assert bus.statistics().queued == 1


def test_one_that_is_killed_is_started_again(tmp_path: Path, oona_url: str) -> None:
    """After kill -9 of it another takes over, nothing is lost, and the fault is counted."""
    with oona.Bus.open(tmp_path, "run", oona_url, publisher="process") as bus:
        first = publisher_pid(bus)
        assert bus.offer(STEP)
        assert bus.flush(20.0)
        os.kill(first, signal.SIGKILL)
        assert bus.offer(EPOCH)
        wait_until(lambda: bus.statistics().delivered == 2)
        assert publisher_pid(bus) != first
        assert bus.statistics().num_faults == 1
    assert oona.count_delivered(oona_url, "run") == 2


TRAINER = """
import os, pathlib, signal, sys
import leyline, oona
bus = oona.Bus.open(pathlib.Path(sys.argv[1]), "run", sys.argv[2], publisher="process")
for step in range(2000):
    bus.offer(leyline.StepMetrics(step=step, loss=0.5))
os.write(1, str(bus._parts.publisher.pid).encode())
signal.pause()
"""


def test_it_outlives_a_killed_trainer_until_all_is_sent(
    tmp_path: Path,
    oona_url: str,
    spawn: Callable[..., subprocess.Popen[bytes]],
    wait_for_end: Callable[[int], bool],
) -> None:
    """After kill -9 of the trainer its publisher sends what waits, and then ends."""
    trainer = spawn(TRAINER, str(tmp_path), oona_url)
    assert trainer.stdout is not None
    publisher = int(os.read(trainer.stdout.fileno(), 20))
    trainer.kill()
    assert wait_for_end(publisher)
    ledger = oona.ledger(tmp_path)
    assert (ledger.delivered, ledger.queued) == (2000, 0)
    assert oona.count_delivered(oona_url, "run") == 2000


def test_two_senders_exclude_each_other(tmp_path: Path, oona_url: str) -> None:
    """While one holds the claim on the outbox another waits and says so; then it goes on."""
    first = Outbox(tmp_path / outbox_file.FILE_NAME)
    assert first.claim.take()
    with oona.Bus.open(tmp_path, "run", oona_url) as bus:
        assert bus.offer(STEP)
        wait_until(lambda: bus.health()[1] == "another process is sending this run's events")
        assert not oona.drain(tmp_path)
        assert bus.statistics().queued == 1
        first.claim.release()
        assert bus.flush(20.0)
        assert bus.statistics().delivered == 1


def test_what_a_killed_run_left_is_drained_by_the_next_who_asks(
    tmp_path: Path, oona_url: str
) -> None:
    """`drain` delivers what waits in an outbox that nobody sends, once, and counts it."""
    with oona.Bus.open(tmp_path, "run", NOWHERE) as bus:
        assert all(bus.offer(STEP) for _ in range(100))
    assert not oona.drain(tmp_path), "its server is nowhere"
    (tmp_path / "bus.json").write_text(f'{{"url": "{oona_url}", "run_id": "run"}}')
    assert oona.drain(tmp_path)
    assert oona.drain(tmp_path), "there is nothing left"
    assert oona.count_delivered(oona_url, "run") == 100
    assert oona.ledger(tmp_path).delivered == 100


def test_a_directory_without_a_bus_has_nothing_to_drain(tmp_path: Path) -> None:
    """No run file, or a damaged outbox, is no error of the reader who asks."""
    assert not oona.drain(tmp_path)
    (tmp_path / "bus.json").write_text('{"url": "redis://localhost", "run_id": "run"}')
    assert not oona.drain(tmp_path)
    (tmp_path / outbox_file.FILE_NAME).write_bytes(b"no outbox")
    assert not oona.drain(tmp_path)


@pytest.mark.parametrize("run_id", ["", "x" * 513, "a\ud800", "line\nbreak"])
def test_a_run_id_that_names_no_stream_is_refused(tmp_path: Path, run_id: str) -> None:
    """Too short, too long, unencodable or with a line break: an error, and no file."""
    with pytest.raises(leyline.ConfigError, match="run id of"):
        oona.Bus.open(tmp_path / "run", run_id, "memory")
    assert not (tmp_path / "run").exists()


def test_an_unknown_publisher_is_refused(tmp_path: Path) -> None:
    """The error names what was asked for and what there is."""
    with pytest.raises(leyline.ConfigError, match="publisher 'fiber' refused: it may be thread or"):
        oona.Bus.open(tmp_path, "run", "memory", publisher="fiber")
    with pytest.raises(leyline.ConfigError, match="limit of 0 bytes"):
        oona.Bus.open(tmp_path, "run", "memory", bytes_per_s=0)


def test_without_a_file_a_thread_does_it(tmp_path: Path) -> None:
    """What another process cannot reach is published by a thread, and a warning says so."""
    with oona.Bus.open(tmp_path, "run", "memory", publisher="process") as bus:
        assert bus.offer(STEP)
        assert bus.flush(5.0)
        assert "published by a thread" in bus.statistics().warnings[0]
