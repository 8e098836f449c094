"""The SQLite file of an audit trail: opened, recognised, made; its errors in words."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from leyline import RunError
from oona.audit import schema
from oona.audit.chain import GENESIS, Chain
from oona.audit.head import Head

_APPLICATION_ID: Final = 0x45535041
"""Says in the file's header whose database it is."""
_READ_TIMEOUT_S: Final = 5.0
_WRITE_TIMEOUT_S: Final = 1.0
"""A collector that is told to stop has two seconds; it tries again by itself."""
_NO_ROOM: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})
_HELD: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class NothingWrittenError(RunError):
    """A trail whose writer has not come to its tables yet, or was killed before."""


class PassingError(RunError):
    """A trail that cannot be written now but may be later: a lock, or a disk without room."""


@contextmanager
def database_errors(path: Path) -> Iterator[None]:
    """Say what SQLite refuses as a RunError that names the file and what to do."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        kind, advice = RunError, ""
        if code in _HELD:
            kind, advice = PassingError, "; another process holds it: nothing was written"
        elif code in _NO_ROOM:
            kind = PassingError
            advice = "; nothing of this batch was kept: free some space on that disk, or mend it"
        elif code in _DAMAGE:
            advice = (
                "; it is left as it is: `esper verify` tells more. Move it and its .head away to "
                "have it written anew from what the outbox and the server still hold"
            )
        raise kind(f"{path} cannot be used: {error}{advice}") from error


def open_writable(path: Path, chain: Chain) -> sqlite3.Connection:
    """Open a trail to write to, made if it is not there; the caller sees to it that it is alone.

    Raises:
        RunError: it is damaged, foreign, of a newer format or chained with another key.
        OSError: there is no directory for it.
    """
    with database_errors(path):
        connection = sqlite3.connect(
            path, timeout=_WRITE_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            if _is_blank(connection):
                _make(connection, chain)
            _refuse_others(connection, path, chain)
            connection.execute("PRAGMA synchronous=NORMAL")
        except BaseException:
            connection.close()
            raise
    return connection


def open_readable(path: Path, chain: Chain | None = None) -> sqlite3.Connection:
    """Open a trail that somebody may be writing to, to read it.

    Args:
        path: the file.
        chain: what its rows are to be checked with; None: they are only to be read.

    Raises:
        RunError: it is missing, damaged, foreign, of a newer format or chained with another key.
    """
    if not path.is_file():
        raise RunError(f"there is no audit trail at {path}")
    with database_errors(path):
        try:
            # Opened to write where that is allowed: only so does the last one out tidy up the log.
            return _read_only(path, "mode=rw", chain)
        except sqlite3.OperationalError:
            has_log = path.with_name(f"{path.name}-wal").exists()
            return _read_only(path, "mode=ro" if has_log else "mode=ro&immutable=1", chain)


def _read_only(path: Path, options: str, chain: Chain | None) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.resolve().as_uri()}?{options}",
        uri=True,
        timeout=_READ_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.execute("PRAGMA query_only=ON")
        if _is_blank(connection):
            raise NothingWrittenError(f"there is no event in {path} yet; look again later")
        _refuse_others(connection, path, chain)
    except BaseException:
        connection.close()
        raise
    return connection


def _is_blank(connection: sqlite3.Connection) -> bool:
    """Nothing is in it: new, or its maker was killed as it made it."""
    (num_tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return not num_tables and not _number(connection, "application_id")


def _make(connection: sqlite3.Connection, chain: Chain) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("BEGIN IMMEDIATE")
    tables = schema.statements(integer="INTEGER", text="TEXT", binary="BLOB", strict=" STRICT")
    for statement in tables:
        connection.execute(statement)
    values = (schema.FORMAT, *Head.sealed(chain, 0, GENESIS), chain.key_check)
    connection.execute("INSERT INTO trail VALUES (1, ?, ?, ?, ?, ?)", values)
    connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
    connection.execute("COMMIT")


def _refuse_others(connection: sqlite3.Connection, path: Path, chain: Chain | None) -> None:
    if _number(connection, "application_id") != _APPLICATION_ID:
        raise RunError(f"{path} is a database of something else and is left as it is; move it away")
    row = connection.execute("SELECT format, key_check FROM trail").fetchone()
    if row is None:
        raise RunError(
            f"{path} cannot be used: its table trail is empty, which Esper never leaves it; it is "
            "left as it is. Move it and its .head away to have the trail written anew"
        )
    found, key_check = row
    if found != schema.FORMAT:
        raise RunError(
            f"{path} has format {found}, this version of Esper knows {schema.FORMAT}; it is left "
            "as it is: read it with the version that wrote it"
        )
    flaw = None if chain is None else chain.key_flaw(key_check)
    if flaw is not None:
        raise RunError(f"{path} cannot be used: {flaw}")


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])
