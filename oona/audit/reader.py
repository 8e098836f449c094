"""Reading an audit trail while somebody may be writing it: its events, its gaps, its flaws."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import leyline
from leyline import RunError
from oona.audit import schema
from oona.audit.chain import Chain
from oona.audit.check import Check
from oona.audit.database import NothingWrittenError, database_errors, open_readable
from oona.audit.head import Head, head_path, read_head
from oona.audit.query import Query
from oona.audit.row import Row, seed_names
from oona.reading.admission import Gap

_GAPS: Final = """
SELECT run_id, before + 1, sequence - 1 FROM (
    SELECT run_id, sequence,
        lag(sequence, 1, 0) OVER (PARTITION BY run_id ORDER BY sequence) AS before FROM events
) WHERE sequence > before + 1"""


def read_trail(path: Path, query: Query | None = None) -> Iterator[leyline.Envelope]:
    """Yield the events that a query asks for, in order of time; somebody may be writing meanwhile.

    Raises:
        RunError: there is no trail at `path`, or it is damaged.
    """
    query = Query() if query is None else query
    sql, parameters = query.sql("envelope", "events", placeholder="?", position_of="instr")
    with database_errors(path), closing(open_readable(path)) as connection:
        for (encoded,) in connection.execute(sql, parameters):
            yield decoded(encoded, path)


def decoded(encoded: bytes, where: object) -> leyline.Envelope:
    """The event in a row.

    Raises:
        RunError: it is damaged.
    """
    if not isinstance(encoded, bytes):
        raise RunError(f"a row of {where} is no event; see `esper verify`")
    try:
        envelope = leyline.decode(encoded)
    except leyline.ContractError as error:
        raise RunError(f"an event in {where} is damaged: {error}; see `esper verify`") from error
    if not isinstance(envelope, leyline.Envelope):
        raise RunError(f"a row of {where} is no event; see `esper verify`")
    return envelope


def known_seeds(path: Path) -> list[str]:
    """The names of all seeds that made a transition, in order.

    Raises:
        RunError: there is no trail at `path`, or it is damaged.
    """
    find = "SELECT DISTINCT seeds FROM events WHERE kind = 'seed_report' ORDER BY seeds"
    with database_errors(path), closing(open_readable(path)) as connection:
        found = [seeds for (seeds,) in connection.execute(find)]
    if any(not isinstance(seeds, str | None) for seeds in found):
        raise RunError(f"a row of {path} has seeds that are no names; see `esper verify`")
    return [name for seeds in found for name in seed_names(seeds)]


def find_gaps(path: Path) -> list[Gap]:
    """The sequences that the trail has no events of, exactly, run by run.

    Such an event was dropped at its source, trimmed by the server before anybody read it, or is
    still on its way.

    Raises:
        RunError: there is no trail at `path`, or it is damaged.
    """
    with database_errors(path), closing(open_readable(path)) as connection:
        gaps = [Gap(*found) for found in connection.execute(_GAPS)]
    if any(
        (type(run_id), type(first), type(last)) != (str, int, int) for run_id, first, last in gaps
    ):
        raise RunError(f"a row of {path} has a sequence that is no number; see `esper verify`")
    return gaps


def verify_trail(path: Path, chain: Chain | None = None) -> list[str]:
    """What is wrong with a trail, in words: its file, its rows, their chain, its end.

    Args:
        path: the SQLite file; somebody may be writing to it.
        chain: computes the hashes; None: with the key in ESPER_AUDIT_KEY, if there is one.
    """
    try:
        return _flaws(path, Chain.from_environment() if chain is None else chain)
    except NothingWrittenError as error:
        return [str(error)] if head_path(path).exists() else []
    except leyline.EsperError as error:
        return [str(error)]


def _flaws(path: Path, chain: Chain) -> list[str]:
    noted = read_head(head_path(path))  # first: the trail may go on meanwhile
    with database_errors(path), closing(open_readable(path, chain)) as connection:
        connection.execute("BEGIN")  # one moment of it
        said = [found for (found,) in connection.execute("PRAGMA integrity_check(5)")]
        if said != ["ok"]:
            return [f"SQLite finds: {found}" for found in said]
        check = Check(chain, Head.of_table(connection.execute(schema.HEAD).fetchone(), path), noted)
        for position, *columns, found in connection.execute(schema.ALL_ROWS):
            check.take(position, Row(*columns), found)
        return check.flaws()
