"""The same rows and the same chain in PostgreSQL: a real server, if one is installed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from leyline import BusError, RunError
from oona import Bus
from oona.audit.chain import Chain
from oona.audit.postgres import PostgresStore
from oona.audit.query import Query
from oona.audit.store import open_store
from oona.metrics.operations import Operations
from oona.servers.embedded import EmbeddedServer
from tests.oona.audit.conftest import PASSWORD
from tests.oona.audit.events import NOON_NS, enveloped, seed_report, steps

RunAsync = Callable[..., Any]


async def opened(url: str, key: bytes = b"") -> PostgresStore:
    return await PostgresStore.open(url, Operations(), Chain(key))


def change(url: str, *statements: str) -> None:
    """Do to the tables what somebody with a login can do."""
    with psycopg.connect(url, options="-c search_path=esper_audit") as connection:
        for statement in statements:
            connection.execute(statement.encode())


def test_both_stores_hold_the_same_rows_and_the_same_chain(
    postgres_url: str, tmp_path: Path, run_async: RunAsync
) -> None:
    """The same batches, with duplicates and hostile names, give the same head in both; opened
    again, the store goes on where it was."""

    async def check() -> None:
        lite = await open_store(f"sqlite:{tmp_path / 'audit.db'}", Operations(), Chain())
        post: Any = await open_store(postgres_url, Operations(), Chain())
        names = enveloped([seed_report("nul\0in\nit")], run_id="nul\0in\nit")
        for batch in (steps(300), names, steps(350), steps(350)[::7] * 2, []):
            assert await lite.append(batch) == await post.append(batch)
        await post.close()
        post = await opened(postgres_url)
        assert await lite.append(steps(351)) == await post.append(steps(351)) == 1
        head = await post.head()
        assert head.num_rows == 352
        assert head.last_hash.hex() in (tmp_path / "audit.head").read_text()
        assert await post.verify() == []
        await lite.close()
        await post.close()

    run_async(check())


def test_queries_find_the_same_events(postgres_url: str) -> None:
    """By kind, seed, time, epoch and number, in order of time."""

    async def check() -> None:
        post = await opened(postgres_url)
        await post.append(steps(2500)[::-1])
        await post.append(enveloped([seed_report("a/1"), seed_report("a/10")], first=2501))

        async def found(**conditions: Any) -> list[int]:
            return [envelope.sequence async for envelope in post.select(Query(**conditions))]

        assert await found() == list(range(1, 2503))
        assert await found(kinds=("seed_report", "decision")) == [2501, 2502]
        assert await found(seed="a/1") == [2501]
        assert await found(seed="A/1") == []
        assert await found(since_ns=NOON_NS + 2501 * 10**9, epoch=2) == [2501, 2502]
        assert await found(kinds=("step",), limit=2) == [2499, 2500]
        await post.close()

    asyncio.run(check())


def test_writers_take_turns(postgres_url: str) -> None:
    """Eight tasks on two pools append the same history at once: every event is there once."""

    async def check() -> None:
        stores = [await opened(postgres_url) for _ in range(2)]
        async with asyncio.TaskGroup() as tasks:
            appending = [
                tasks.create_task(stores[n % 2].append(steps(50 * n)), name=f"append {n}")
                for n in range(1, 9)
            ]
        assert sum(task.result() for task in appending) == 400
        assert await stores[0].verify() == []
        assert (await stores[1].head()).num_rows == 400
        for store in stores:
            await store.close()

    asyncio.run(check())


TAMPERING = (
    "UPDATE events SET epoch = 9 WHERE position = 4",
    "DELETE FROM events WHERE position = 4",
    "DELETE FROM events WHERE position = 10",
    "UPDATE events SET position = 14 - position WHERE position IN (6, 8)",
    "INSERT INTO events SELECT 11, run_id, 99, lane, kind, seeds, epoch, step, wall_ns, "
    "monotonic_ns, envelope, hash FROM events WHERE position = 3",
    "UPDATE trail SET last_hash = 'x'",
)


def test_what_was_tampered_with_is_found(postgres_url: str) -> None:
    """A row altered, removed, cut off, moved or inserted, or a seal that was changed."""
    unlock = "ALTER TABLE events DROP CONSTRAINT events_pkey"

    async def check() -> None:
        for statement in TAMPERING:
            post = await opened(postgres_url)
            await post.append(steps(10))
            assert await post.verify() == []
            await asyncio.to_thread(change, postgres_url, unlock, statement)
            assert await post.verify(), statement
            await post.close()
            await asyncio.to_thread(change, postgres_url, "DROP SCHEMA esper_audit CASCADE")

    asyncio.run(check())


def test_without_its_key_nobody_can_seal_another_end(postgres_url: str) -> None:
    """The last rows cut off and the head changed to fit: `verify` finds it, and nothing is written
    after it; without a head there are words for that."""
    cut = (
        "DELETE FROM events WHERE position > 7",
        "UPDATE trail SET (num_rows, last_hash) = "
        "(SELECT position, hash FROM events WHERE position = 7)",
    )

    async def check() -> None:
        post = await opened(postgres_url, b"k" * 32)
        await post.append(steps(10))
        assert await post.verify() == []
        await asyncio.to_thread(change, postgres_url, *cut)
        (flaw,) = await post.verify()
        assert "row 7 does not have the seal" in flaw
        with pytest.raises(RunError, match="does not have the seal"):
            await post.append(steps(11))
        await asyncio.to_thread(change, postgres_url, "DELETE FROM trail")
        for look in (post.verify(), post.append(steps(11)), opened(postgres_url, b"k" * 32)):
            with pytest.raises(RunError, match="table trail is empty"):
                await look
        await post.close()

    asyncio.run(check())


def test_other_keys_and_formats_are_refused(postgres_url: str) -> None:
    """By name, and without the password in the error."""

    async def check() -> None:
        await (await opened(postgres_url, b"k" * 32)).close()
        with pytest.raises(RunError, match="another key") as refused:
            await opened(postgres_url, b"o" * 32)
        assert PASSWORD not in str(refused.value)
        await asyncio.to_thread(change, postgres_url, "UPDATE trail SET format = 9")
        with pytest.raises(RunError, match="format 9, this version of Esper knows 2"):
            await opened(postgres_url, b"k" * 32)

    asyncio.run(check())


def test_a_login_that_is_refused_says_so_without_the_password(postgres_url: str) -> None:
    """The server's own words, with the URL redacted."""
    with pytest.raises(BusError, match="password authentication failed") as refused:
        asyncio.run(opened(postgres_url.replace(PASSWORD, "wrong-secret")))
    assert "esper:***@/" in str(refused.value)
    assert "wrong-secret" not in str(refused.value)


def test_a_cancelled_batch_is_not_there(postgres_url: str) -> None:
    """Cancelled while it waits for its turn, it leaves nothing, and the store goes on."""

    async def check() -> None:
        post = await opened(postgres_url)
        await post.append(steps(3))
        holder = await psycopg.AsyncConnection.connect(
            postgres_url, options="-c search_path=esper_audit"
        )
        await holder.execute("SELECT * FROM trail FOR UPDATE")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await post.append(steps(9))
        await holder.close()
        assert await post.append(steps(5)) == 2
        assert await post.verify() == []
        await post.close()

    asyncio.run(check())


@pytest.mark.slow
def test_a_collector_killed_while_it_fills_the_database_and_started_again(
    postgres_url: str, oona_server: EmbeddedServer, tmp_path: Path
) -> None:
    """`esper collect --store postgresql://...`, killed -9 as it writes: in the end every event is
    there once, and the password was never printed."""
    with Bus.open(tmp_path, "run", oona_server.url) as bus:
        for step in range(5000):
            assert bus.offer(steps(1)[0].event), step
        assert bus.flush(10.0)
        asked = {"env": os.environ | {"STORE": postgres_url}, "cwd": Path(__file__).parents[3]}
        command = [sys.executable, "-c", COLLECTING, str(tmp_path)]
        first = subprocess.Popen(command, **asked)  # type: ignore[call-overload]
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            there = "SELECT to_regclass('esper_audit.events') IS NOT NULL"
            while not connection.execute(there.encode()).fetchone()[0]:  # type: ignore[index]
                assert first.poll() is None
        first.send_signal(signal.SIGKILL)
        first.wait(10)
        done = subprocess.run(command, **asked, capture_output=True, timeout=60)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    assert PASSWORD.encode() not in done.stdout + done.stderr

    async def check() -> None:
        post = await opened(postgres_url)
        assert await post.verify() == []
        assert [e.sequence async for e in post.select(Query())] == list(range(1, 5001))
        await post.close()

    asyncio.run(check())


COLLECTING = """
import os, sys
from pathlib import Path
from oona.collecting.service import collect
print(collect(Path(sys.argv[1]), os.environ["STORE"], is_live=lambda: False))
"""
