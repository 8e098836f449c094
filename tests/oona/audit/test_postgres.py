"""The same rows and the same chain in PostgreSQL: a real server, if one is installed."""

from __future__ import annotations

import asyncio
from pathlib import Path

from oona.audit.chain import Chain
from oona.audit.postgres import PostgresStore
from oona.audit.query import Query
from oona.audit.store import open_store
from oona.metrics.operations import Operations
from tests.oona.audit.events import steps


async def opened(url: str, key: bytes = b"") -> PostgresStore:
    return await PostgresStore.open(url, Operations(), Chain(key))


def test_both_stores_hold_the_same_rows_and_the_same_chain(
    postgres_url: str, tmp_path: Path
) -> None:
    """The same batches, with duplicates, give the same head and the same rows in both."""

    async def check() -> None:
        lite = await open_store(f"sqlite:{tmp_path / 'audit.db'}", Operations(), Chain())
        post = await open_store(postgres_url, Operations(), Chain())
        assert isinstance(post, PostgresStore)
        batches = [steps(300), steps(10, run_id="nul\0in\nit"), steps(350), []]
        for batch in batches:
            assert await lite.append(batch) == await post.append(batch)
        head = await post.head()
        assert head.num_rows == 360
        assert (tmp_path / "audit.head").read_text().count(head.last_hash.hex()) == 1
        assert await lite.verify() == await post.verify() == []
        asked = Query(limit=5)
        assert [e async for e in post.select(asked)] == steps(350)[-5:]
        await lite.close()
        await post.close()

    asyncio.run(check())
