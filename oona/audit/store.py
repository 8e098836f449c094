"""Where a collector keeps events: the same small interface over SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import leyline
from oona.audit.chain import Chain
from oona.audit.store_url import SQLITE, check_store
from oona.audit.trail import AuditTrail
from oona.metrics.operations import Operations
from oona.off_loop import off_loop

_TIMEOUT_S: Final = 30.0
"""Longest that a disk may take for a batch before the collector gives up."""


class Store(Protocol):
    """Keeps events for good, chained; used by one task at a time."""

    @property
    def num_refused(self) -> int:
        """Hostile events that it cannot hold."""

    async def append(self, envelopes: Sequence[leyline.Envelope]) -> int:
        """Commit events, all or none; those that are there already are passed over.

        Returns:
            How many are new.

        Raises:
            EsperError: nothing was committed, and why.
        """

    async def close(self) -> None:
        """Let go of it; further calls do nothing."""


class SqliteStore:
    """An audit trail in a SQLite file, its work done off the loop."""

    def __init__(self, path: Path, chain: Chain | None, operations: Operations):
        self._trail = AuditTrail.open(path, chain)
        self._operations = operations

    @property
    def num_refused(self) -> int:
        """Hostile events that no row can hold."""
        return self._trail.num_refused

    async def append(self, envelopes: Sequence[leyline.Envelope]) -> int:
        """Commit events; see `AuditTrail.append`."""
        return await off_loop(
            "audit append",
            self._trail.append,
            envelopes,
            timeout_s=_TIMEOUT_S,
            operations=self._operations,
        )

    async def close(self) -> None:
        """Let go of the file, after a batch that is under way."""
        await off_loop("audit close", self._trail.close, timeout_s=_TIMEOUT_S)


async def open_store(url: str, operations: Operations, chain: Chain | None = None) -> Store:
    """Open the store that a URL names, and make what it lacks.

    Args:
        url: sqlite:PATH or postgresql://...
        operations: where its operations are timed.
        chain: computes the hashes; None: with the key in ESPER_AUDIT_KEY, if there is one.

    Raises:
        ConfigError: the URL is not understood, or psycopg is not installed.
        RunLockedError: another process writes to the SQLite file.
        RunError: what is there cannot be used.
        BusError: the database server cannot be reached.
    """
    check_store(url)
    if url.startswith(SQLITE):
        path = Path(url.removeprefix(SQLITE))
        return await off_loop(
            "audit open", SqliteStore, path, chain, operations, timeout_s=_TIMEOUT_S
        )
    from oona.audit.postgres import PostgresStore  # late: psycopg is an extra

    return await PostgresStore.open(url, operations, chain)
