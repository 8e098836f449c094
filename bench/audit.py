"""What an event costs in the audit trail, beside plain SQLite: the same rows without a chain."""

from __future__ import annotations

import itertools
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import leyline
from bench.harness import Effort, Row, Target
from oona.audit import AuditTrail, read_trail, verify_trail
from oona.audit.query import Query
from oona.audit.row import Row as Stored
from oona.audit.row import row_of

TITLE = "audit trail: every event to SQLite, each row chained to the one before"
_BATCH_EVENTS = 1000
_GOAL_RATIO = 4.0
_CHECK_GOAL_US = 100.0


def rows(effort: Effort) -> Iterator[Row]:
    """Appending, checking the chain, and asking for one seed's decisions."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audit.db"
        yield _appending(effort, path, Path(folder) / "plain.db")
        yield _checking(effort, path)
        yield _asking(effort, path)


def _batches(run_id: str) -> Callable[[], list[leyline.Envelope]]:
    """Batches of a run's steps, each of new events."""
    numbers = itertools.count(1)

    def batch() -> list[leyline.Envelope]:
        return [
            leyline.Envelope(
                run_id=run_id,
                sequence=number,
                priority=0,
                monotonic_ns=number,
                wall_ns=number,
                event=leyline.StepMetrics(step=number, loss=0.5),
            )
            for number in itertools.islice(numbers, _BATCH_EVENTS)
        ]

    return batch


def _appending(effort: Effort, path: Path, plain_path: Path) -> Row:
    plain = sqlite3.connect(plain_path, isolation_level=None)
    plain.execute("PRAGMA journal_mode=WAL")
    plain.execute("PRAGMA synchronous=NORMAL")
    plain.execute(f"CREATE TABLE events ({', '.join(Stored._fields)})")
    marks = ", ".join("?" * len(Stored._fields))
    insert = f"INSERT INTO events VALUES ({marks})"  # noqa: S608 -- question marks
    ours, theirs = _batches("ours"), _batches("theirs")
    with AuditTrail.open(path) as trail:

        def append_plain() -> None:
            plain.execute("BEGIN")
            plain.executemany(insert, map(row_of, theirs()))
            plain.execute("COMMIT")

        found = effort.compare(lambda: trail.append(ours()), append_plain)
    plain.close()
    return Row.timed(
        "audit/append",
        f"append, {_BATCH_EVENTS:,} a transaction, indexed and chained",
        "us an event",
        found,
        peer="SQLite without index or chain",
        most=_GOAL_RATIO,
        per=_BATCH_EVENTS,
    )


def _checking(effort: Effort, path: Path) -> Row:
    num_events = sum(1 for _ in read_trail(path))

    def verify() -> None:
        assert verify_trail(path) == []

    return Row.timed(
        "audit/verify",
        f"verify a chain of {num_events:,} rows",
        "us an event",
        effort.compare(verify, lambda: list(read_trail(path)), num_pairs=5),
        peer="reading them",
        target=Target(p50=_CHECK_GOAL_US),
        per=num_events,
    )


def _asking(effort: Effort, path: Path) -> Row:
    query = Query(kinds=("decision",), seed="block2/3")
    found = effort.compare(
        lambda: list(read_trail(path, query)), lambda: list(read_trail(path)), num_pairs=5
    )
    return Row.timed(
        "audit/query",
        "decisions about one seed among them",
        "ms",
        found,
        peer="reading all",
        target=Target(p50=5.0),
    )
