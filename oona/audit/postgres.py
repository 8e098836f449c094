"""The audit trail in PostgreSQL: the same rows and the same chain, by pooled connections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, LiteralString, Self

import leyline
from leyline import BusError, ConfigError, RunError
from oona.audit import schema
from oona.audit.chain import GENESIS, Chain
from oona.audit.check import Check
from oona.audit.head import Head
from oona.audit.query import Query
from oona.audit.reader import decoded
from oona.audit.row import Row, row_of
from oona.audit.store_url import redact
from oona.metrics.operations import Operations
from oona.off_loop import off_loop

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from psycopg_pool import AsyncConnectionPool

SCHEMA: Final = "esper_audit"
"""The schema in the database that holds the tables."""

_LOAD_TIMEOUT_S: Final = 30.0
_CONNECT_TIMEOUT_S: Final = 5.0
_STATEMENT_TIMEOUT_MS: Final = 30_000
_NUM_CONNECTIONS: Final = 4
_PAGE_ROWS: Final = 1000
_MAKING: Final = 0x45535041
"""The advisory lock under which the tables are made: CREATE IF NOT EXISTS can still collide."""
_KNOWN: Final = """
SELECT run_id, sequence FROM events
JOIN unnest(%s::text[], %s::bigint[]) AS asked (run_id, sequence) USING (run_id, sequence)"""
_COPY: Final = f"COPY events ({schema.ROW}) FROM STDIN (FORMAT BINARY)"
_TYPES: Final = ("int8", "text", "int8", "int8", "text", "text", *["int8"] * 4, "bytea", "bytea")
_SEAL: Final = "UPDATE trail SET num_rows = %s, last_hash = %s, seal = %s"


class PostgresStore:
    """A store in a database's own tables; any number of writers take turns.

    The head of the chain is kept in the database alone: note it elsewhere (`head`) if whoever
    rules the database is not to be trusted.
    """

    def __init__(
        self,
        url: str,
        pool: AsyncConnectionPool[AsyncConnection[Any]],
        operations: Operations,
        chain: Chain,
    ):
        self.num_refused = 0
        """Hostile events that no store can hold."""
        self._url = url
        self._pool = pool
        self._operations = operations
        self._chain = chain

    @classmethod
    async def open(cls, url: str, operations: Operations, chain: Chain | None = None) -> Self:
        """Connect, and make the tables if they are not there.

        Args:
            url: postgresql://USER:PASSWORD@HOST/DATABASE, as libpq takes it; what it leaves out is
                taken from libpq's own variables, such as PGPASSWORD and PGPASSFILE.
            operations: where its operations are timed.
            chain: computes the hashes; None: with the key in ESPER_AUDIT_KEY, if there is one.

        Raises:
            ConfigError: psycopg is not installed, or the key is too short.
            BusError: no server answers there, or it refuses.
            RunError: the tables are of another format, or chained with another key.
        """
        chain = Chain.from_environment() if chain is None else chain
        try:
            # Off the loop: it takes a moment.
            psycopg, psycopg_pool = [
                await off_loop("load psycopg", import_module, name, timeout_s=_LOAD_TIMEOUT_S)
                for name in ("psycopg", "psycopg_pool")
            ]
        except ImportError as error:
            raise ConfigError(
                "a store in PostgreSQL needs psycopg: pip install 'esper-morphogenesis[postgres]'"
            ) from error
        options: dict[str, Any] = {
            "connect_timeout": int(_CONNECT_TIMEOUT_S),
            "options": f"-c statement_timeout={_STATEMENT_TIMEOUT_MS} -c search_path={SCHEMA}",
            "application_name": "esper audit",
        }
        with _server_errors(url):
            # Not from the pool, which would not say why it gets no connection.
            async with await psycopg.AsyncConnection.connect(url, **options) as connection:
                await _make(connection, url, chain)
            pool = psycopg_pool.AsyncConnectionPool(
                url,
                kwargs=options,
                min_size=1,
                max_size=_NUM_CONNECTIONS,
                timeout=_CONNECT_TIMEOUT_S,
                reconnect_timeout=_CONNECT_TIMEOUT_S,
                open=False,
                name="esper-audit",
            )
            await pool.open()
        return cls(url, pool, operations, chain)

    async def append(self, envelopes: Sequence[leyline.Envelope]) -> int:
        """Commit events, all or none; those that are there already are passed over.

        Returns:
            How many are new.

        Raises:
            BusError: the server refused or went away; nothing was committed.
            RunError: the end of the chain is not the one that was written; nothing was committed.
        """
        found = [row_of(envelope) for envelope in envelopes]
        rows = {(row.run_id, row.sequence): row for row in found if row is not None}
        with self._operations.timed("audit append"):
            async with self._transaction() as connection:
                # The row lock has writers take turns: the chain has one end.
                head = await self._head(connection, lock=" FOR UPDATE")
                if not head.has_seal_of(self._chain):
                    raise RunError(
                        f"{redact(self._url)}: row {head.num_rows}, its end, does not have the "
                        "seal of who wrote the trail; nothing was committed: `esper verify` tells "
                        "more"
                    )
                asked = [[key[0] for key in rows], [key[1] for key in rows]]
                known = set(await (await connection.execute(_KNOWN, asked)).fetchall())
                new = [row for key, row in rows.items() if key not in known]
                if new:
                    await self._insert(connection, head, new)
        self.num_refused += sum(row is None for row in found)
        return len(new)

    async def verify(self) -> list[str]:
        """What is wrong with the rows, their chain or their end, in words."""
        async with self._transaction() as connection:
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            await connection.execute("SET LOCAL statement_timeout = 0")
            sealed = await self._head(connection)
            check = Check(self._chain, sealed, sealed)
            async with connection.cursor(name="rows") as cursor:
                cursor.itersize = _PAGE_ROWS
                await cursor.execute(schema.ALL_ROWS)
                async for position, *columns, found in cursor:
                    check.take(position, Row(*columns), found)
        return check.flaws()

    async def head(self) -> Head:
        """How many rows there are, and the hash of the last."""
        async with self._transaction() as connection:
            return await self._head(connection)

    async def select(self, query: Query) -> AsyncIterator[leyline.Envelope]:
        """Yield the events that a query asks for, in order of time."""
        sql, parameters = query.sql("envelope", "events", placeholder="%s", position_of="strpos")
        async with (
            self._transaction() as connection,
            connection.cursor(name="events") as cursor,
        ):
            cursor.itersize = _PAGE_ROWS
            await cursor.execute(sql, parameters)
            async for (encoded,) in cursor:
                yield decoded(encoded, redact(self._url))

    async def close(self) -> None:
        """Close the connections; further calls do nothing."""
        await self._pool.close()

    async def _insert(self, connection: AsyncConnection[Any], head: Head, rows: list[Row]) -> None:
        count, last_hash, _ = head
        async with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            copy.set_types(_TYPES)
            for row in rows:
                count += 1
                last_hash = self._chain.link(last_hash, count, row)
                await copy.write_row((count, *row, last_hash))
        await connection.execute(_SEAL, Head.sealed(self._chain, count, last_hash))

    async def _head(self, connection: AsyncConnection[Any], *, lock: LiteralString = "") -> Head:
        found = await (await connection.execute(schema.HEAD + lock)).fetchone()
        return Head.of_table(found, redact(self._url))

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection[Any]]:
        with _server_errors(self._url):
            async with self._pool.connection() as connection:
                yield connection


@contextmanager
def _server_errors(url: str) -> Iterator[None]:
    import psycopg  # late: it is an extra

    try:
        yield
    except psycopg.Error as error:  # those of the pool too
        said = " ".join(str(error).split()) or type(error).__name__
        raise BusError(f"{redact(url)}: {said}; nothing was committed") from error


async def _make(connection: AsyncConnection[Any], url: str, chain: Chain) -> None:
    """Make the tables if need be, and refuse those that are not for this chain."""
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_MAKING,))
    cursor = await connection.execute("SELECT to_regclass(%s) IS NULL", (f"{SCHEMA}.trail",))
    if (await cursor.fetchone() or (False,))[0]:
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        tables = schema.statements(integer="BIGINT", text="TEXT", binary="BYTEA", strict="")
        for statement in tables:
            await connection.execute(statement)
        values = (schema.FORMAT, *Head.sealed(chain, 0, GENESIS), chain.key_check)
        await connection.execute("INSERT INTO trail VALUES (1, %s, %s, %s, %s, %s)", values)
    cursor = await connection.execute("SELECT format, key_check FROM trail")
    found, key_check = await cursor.fetchone() or (None, b"")
    flaw = chain.key_flaw(key_check)
    if found is None:
        flaw = "its table trail is empty, which Esper never leaves it"
    elif found != schema.FORMAT:
        flaw = f"its tables have format {found}, this version of Esper knows {schema.FORMAT}"
    if flaw is not None:
        raise RunError(f"the audit trail in {redact(url)} cannot be used: {flaw}")
