"""The collector: commits, then acknowledges; ends with the run; loses nothing that anybody has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from leyline import RunError
from oona import Bus
from oona.audit.chain import Chain
from oona.audit.store import SqliteStore, open_store
from oona.collecting.collector import Collector
from oona.collecting.service import open_group
from oona.metrics.operations import Operations
from oona.servers.embedded import EmbeddedServer
from oona.streams.groups import ConsumerGroup
from tests.oona.collecting.runs import ENDED, kept, limit_pages, offer_run

RunAsync = Callable[..., Any]


async def collect(
    run_dir: Path,
    *,
    is_live: Callable[[], bool] = lambda: True,
    group: Callable[[], ConsumerGroup] | None = None,
) -> Collector:
    """Collect a run into its own directory until the collector ends by itself."""
    url = f"sqlite:{run_dir / 'audit.db'}"
    operations = Operations()
    store = await open_store(url, operations, Chain())
    collector = Collector(
        group or partial(open_group, run_dir, url),
        store,
        run_dir=run_dir,
        is_live=is_live,
        operations=operations,
    )
    try:
        await collector.run()
    finally:
        await store.close()
    assert operations.summary()["audit append"].count >= 1
    return collector


def test_a_whole_run_is_kept_and_acknowledged(
    oona_server: EmbeddedServer, tmp_path: Path, run_async: RunAsync
) -> None:
    """It ends by itself once the run's end and all before it are there, each event once; the
    server has nothing left for its group, and nothing of this blocked the event loop."""
    with Bus.open(tmp_path, "run", oona_server.url) as bus:
        num_events = offer_run(bus, 1500)
        assert bus.flush(5.0)

        def group() -> ConsumerGroup:
            return ConsumerGroup(oona_server.url, "group", "one", run_id="run", idle_ms=0)

        collector = run_async(collect(tmp_path, group=group))
        other = group()
        assert other.read(0.01) + other.claim() == []
        other.close()
    assert kept(tmp_path / "audit.db") == list(range(1, num_events + 1))
    assert collector.num_events == num_events


def test_events_that_come_later_are_waited_for(
    oona_server: EmbeddedServer, tmp_path: Path, run_async: RunAsync
) -> None:
    """It starts before the run does and stays until its end."""

    async def beside() -> None:
        bus = Bus.open(tmp_path, "run", oona_server.url)
        async with asyncio.TaskGroup() as tasks:
            work = tasks.create_task(collect(tmp_path), name="collector")
            offer_run(bus, 10, ends=False)
            await asyncio.to_thread(bus.flush, 5.0)
            while len(kept(tmp_path / "audit.db")) < 11:
                await asyncio.sleep(0.01)
            assert not work.done()
            bus.offer(ENDED)
        await asyncio.to_thread(bus.close)

    run_async(beside())
    assert kept(tmp_path / "audit.db") == list(range(1, 13))


def test_without_a_server_the_outbox_is_drained(tmp_path: Path, run_async: RunAsync) -> None:
    """What never reached a server is in the trail too, of a run that ended and of a dead one."""
    bus = Bus.open(tmp_path, "run", f"unix://{tmp_path}/nobody.sock")
    num_events = offer_run(bus, 20, ends=False)
    bus.close(0.1)
    collector = run_async(collect(tmp_path, is_live=lambda: False))
    assert kept(tmp_path / "audit.db") == list(range(1, num_events + 1))
    assert "nobody.sock" in collector.problem
    bus = Bus.open(tmp_path, "run", f"unix://{tmp_path}/nobody.sock")
    bus.offer(ENDED)
    bus.close(0.1)
    assert run_async(collect(tmp_path)).num_events == 1


def test_nothing_is_acknowledged_before_it_is_committed(
    oona_server: EmbeddedServer,
    tmp_path: Path,
    run_async: RunAsync,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A store on a full disk: told to stop, the collector ends with the error, and the server still
    has it all for the next one, whose store has room."""
    with Bus.open(tmp_path, "run", oona_server.url) as bus:
        num_events = offer_run(bus, 3000)
        assert bus.flush(5.0)

        def group() -> ConsumerGroup:
            return ConsumerGroup(oona_server.url, "group", "one", run_id="run", idle_ms=0)

        async def fail() -> None:
            store = SqliteStore(tmp_path / "full.db", Chain(), Operations())
            limit_pages(store._trail, 12)
            collector = Collector(
                group, store, run_dir=None, is_live=lambda: True, operations=Operations()
            )
            work = asyncio.create_task(collector.run(), name="collector")
            try:
                while "tried again" not in caplog.text:
                    await asyncio.sleep(0.01)
                collector.stop()
                await work
            finally:
                await store.close()

        with pytest.raises(RunError, match="nothing of this batch was kept"):
            run_async(fail())
        other = group()
        claimed = [e.sequence for d in other.claim() for e in d.envelopes]
        rest = [e.sequence for d in other.read(0.01) for e in d.envelopes]
        other.close()
        assert sorted(claimed + rest) == list(range(1, num_events + 1))


def test_what_a_dead_consumer_left_is_claimed(
    oona_server: EmbeddedServer, tmp_path: Path, run_async: RunAsync
) -> None:
    """Another consumer took everything and died; one that collects from servers only, and so has
    no outbox to look at, gets it all."""
    with Bus.open(tmp_path, "run", oona_server.url) as bus:
        num_events = offer_run(bus, 40)
        assert bus.flush(5.0)
        dead = ConsumerGroup(oona_server.url, "group", "dead")
        assert sum(len(d.envelopes) for d in dead.read(1.0)) == num_events
        dead.close()

        async def claim() -> None:
            url = f"sqlite:{tmp_path / 'audit.db'}"
            store = await open_store(url, Operations(), Chain())
            collector = Collector(
                lambda: ConsumerGroup(oona_server.url, "group", "heir", idle_ms=0),
                store,
                run_dir=None,
                is_live=lambda: True,
                operations=Operations(),
            )
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(collector.run(), name="collector")
                while collector.num_events < num_events:
                    await asyncio.sleep(0.01)
                collector.stop()
            await store.close()

        run_async(claim())
    assert kept(tmp_path / "audit.db") == list(range(1, num_events + 1))


def test_a_server_that_comes_back_is_read_again(tmp_path: Path, run_async: RunAsync) -> None:
    """The first server dies under the collector; of the second it gets what the first never had."""
    first = EmbeddedServer(tmp_path / "first.log")
    second = EmbeddedServer(tmp_path / "second.log")
    servers = [first, second]

    async def check() -> None:
        bus = Bus.open(tmp_path, "run", first.url)
        num_events = offer_run(bus, 10, ends=False)
        await asyncio.to_thread(bus.flush, 5.0)

        def group() -> ConsumerGroup:
            return ConsumerGroup(servers[0].url, "group", "one", run_id="run")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(collect(tmp_path, group=group), name="collector")
            while not kept(tmp_path / "audit.db"):
                await asyncio.sleep(0.01)
            await asyncio.to_thread(bus.close)
            first.stop()
            other = Bus.open(tmp_path, "run", second.url)
            servers.pop(0)
            other.offer(ENDED)
        await asyncio.to_thread(other.close)
        assert kept(tmp_path / "audit.db") == list(range(1, num_events + 2))

    try:
        run_async(check())
    finally:
        first.stop()
        second.stop()
