"""Stores that refuse for a while, by a lock or a full disk: tried again until they take it."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import leyline
from leyline import BusError, RunError
from oona import Bus
from oona.audit import AuditTrail
from oona.audit.chain import Chain
from oona.audit.database import PassingError
from oona.audit.store import SqliteStore
from oona.collecting import patience, start_child
from oona.collecting.collector import Collector
from oona.collecting.patience import Patience
from oona.metrics.operations import Operations
from oona.servers.embedded import EmbeddedServer
from oona.streams.groups import ConsumerGroup
from tests.oona.audit.events import steps
from tests.oona.collecting.runs import ENDED, kept, offer_run

RunAsync = Callable[..., Any]


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that grow to a hundredth of a second."""
    monkeypatch.setattr(patience, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(patience, "_LONGEST_PAUSE_S", 0.01)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30.0
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        os.sched_yield()


@pytest.mark.usefixtures("short_pauses")
def test_a_lock_that_ends(
    oona_server: EmbeddedServer,
    tmp_path: Path,
    run_async: RunAsync,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Somebody holds the file: nothing is acknowledged meanwhile; in the end every event is there
    once; it was said once when it began and once when it was over."""
    path = tmp_path / "audit.db"

    async def check() -> int:
        stored, operations = Operations(), Operations()
        store = SqliteStore(path, Chain(), stored)
        store._trail._connection.execute("PRAGMA busy_timeout=0")
        collector = Collector(
            lambda: ConsumerGroup(oona_server.url, "group", "one", run_id="run"),
            store,
            run_dir=tmp_path,
            is_live=lambda: True,
            operations=operations,
        )
        with closing(sqlite3.connect(path, isolation_level=None)) as holder:
            holder.execute("BEGIN EXCLUSIVE")
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(collector.run(), name="collector")
                while "tried again" not in caplog.text:
                    await asyncio.sleep(0.01)
                while stored.summary()["audit append"].count < 4:  # tries that nobody hears of
                    await asyncio.sleep(0.01)
                assert "acknowledge events" not in operations.summary()
                holder.execute("ROLLBACK")
        await store.close()
        return collector.num_events

    with Bus.open(tmp_path, "run", oona_server.url) as bus:
        num_events = offer_run(bus, 40)
        assert bus.flush(5.0)
        assert run_async(check()) == num_events
    assert kept(path) == list(range(1, num_events + 1))
    began, over = (record.getMessage() for record in caplog.records if record.name == "esper")
    assert "database is locked; another process holds it" in began
    assert "written again" in over


def test_a_disk_that_becomes_free(oona_server: EmbeddedServer, tmp_path: Path) -> None:
    """The system lets no file of the collector's grow, then it does: the child lives on, and every
    event is in the trail."""
    log = tmp_path / "audit.log"
    with Bus.open(tmp_path, "run", oona_server.url) as bus:
        child = start_child(tmp_path)
        wait_until((tmp_path / "audit.head").exists)
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
        num_events = offer_run(bus, 3000, ends=False)
        wait_until(lambda: "tried again" in log.read_text())
        free = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, free)
        wait_until(lambda: "written again" in log.read_text())
        bus.offer(ENDED)
    assert child.wait(20.0) is None, log.read_text()
    assert kept(tmp_path / "audit.db") == list(range(1, num_events + 2))
    assert log.read_text().count("nothing of this batch was kept") == 1


@pytest.mark.slow
def test_a_trail_that_is_held_when_the_child_starts(
    oona_server: EmbeddedServer, tmp_path: Path
) -> None:
    """It is opened once it is let go of."""
    path, log = tmp_path / "audit.db", tmp_path / "audit.log"
    AuditTrail.open(path).close()
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as holder,
        Bus.open(tmp_path, "run", oona_server.url) as bus,
    ):
        holder.execute("PRAGMA locking_mode=EXCLUSIVE")
        holder.execute("BEGIN EXCLUSIVE")
        holder.execute("SELECT * FROM trail")
        child = start_child(tmp_path)
        num_events = offer_run(bus, 10)
        wait_until(lambda: log.exists() and "tried again" in log.read_text())
        holder.close()
    assert child.wait(20.0) is None, log.read_text()
    assert kept(path) == list(range(1, num_events + 1))


@pytest.mark.slow
def test_told_to_stop_while_the_trail_is_held(oona_server: EmbeddedServer, tmp_path: Path) -> None:
    """Two seconds still are enough, and the exit code and the log say that not all was kept."""
    path, log = tmp_path / "audit.db", tmp_path / "audit.log"
    with Bus.open(tmp_path, "run", oona_server.url) as bus:
        child = start_child(tmp_path)
        wait_until((tmp_path / "audit.head").exists)
        with closing(sqlite3.connect(path, isolation_level=None)) as holder:
            holder.execute("BEGIN EXCLUSIVE")
            offer_run(bus, 10, ends=False)
            wait_until(lambda: "tried again" in log.read_text())
            asked = time.monotonic()
            child._process.send_signal(signal.SIGTERM)
            assert "ended with code 1" in str(child.wait(10.0))
            assert time.monotonic() - asked < 2.0
    assert "the audit trail ends here" in log.read_text()


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("error", [PassingError("full"), BusError("away")])
def test_after_the_end_it_is_tried_a_few_times_more(
    error: leyline.EsperError, run_async: RunAsync
) -> None:
    """As often as it likes while more may come; then five times, and the error is the caller's."""
    tries: list[int] = []

    async def refuse() -> None:
        tries.append(1)
        raise error

    trying = Patience(lambda: len(tries) > 20, asyncio.Event()).keep_trying(refuse)
    with pytest.raises(type(error)):
        run_async(trying)
    assert len(tries) == 25


def test_pauses_grow_and_a_stop_ends_them(run_async: RunAsync) -> None:
    """Told to stop in a pause, it tries once more at once."""
    tries: list[int] = []

    async def refuse() -> None:
        tries.append(1)
        raise PassingError("full")

    async def check() -> None:
        stopping = asyncio.Event()
        work = asyncio.create_task(
            Patience(lambda: False, stopping).keep_trying(refuse), name="trying"
        )
        while not tries:
            await asyncio.sleep(0)
        stopping.set()
        await work

    with pytest.raises(PassingError):
        run_async(check())
    assert len(tries) == 2


def test_what_does_not_pass_is_the_callers_at_once(run_async: RunAsync) -> None:
    """A foreign or damaged file gets no better."""
    tries: list[int] = []

    async def refuse() -> None:
        tries.append(1)
        raise RunError("damaged")

    with pytest.raises(RunError, match="damaged"):
        run_async(Patience(lambda: False, asyncio.Event()).keep_trying(refuse))
    assert len(tries) == 1


def test_a_batch_whose_note_failed_is_noted_by_the_next_try(tmp_path: Path) -> None:
    """The rows are there, but not the file that notes the end: the same batch again writes that,
    and counts as new."""
    path, way = tmp_path / "audit.db", tmp_path / "audit.head"
    with AuditTrail.open(path, Chain()) as trail:
        way.unlink()
        (way / "in the way").mkdir(parents=True)
        with pytest.raises(RunError, match=r"audit.head cannot be written"):
            trail.append(steps(5))
        (way / "in the way").rmdir()
        way.rmdir()
        assert trail.append(steps(5)) == 5
        assert trail.verify() == []
