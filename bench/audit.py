"""What an event costs in the audit trail, beside plain SQLite: the same rows without a chain."""

from __future__ import annotations

import itertools
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import leyline
from bench.pairs import Row, compare
from oona.audit import AuditTrail, read_trail, verify_trail
from oona.audit.query import Query
from oona.audit.row import Row as Stored
from oona.audit.row import row_of

TITLE = "audit trail: every event to SQLite, each row chained to the one before"
_BATCH_EVENTS = 1000
_GOAL_RATIO = 4.0
_CHECK_GOAL_PER_S = 10_000


def rows() -> list[Row]:
    """Appending, checking the chain, and asking for one seed's decisions."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audit.db"
        found = [_appending(path, Path(folder) / "plain.db")]
        return [*found, _checking(path), _asking(path)]


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


def _appending(path: Path, plain_path: Path) -> Row:
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

        found = compare(lambda: trail.append(ours()), append_plain)
    plain.close()
    per_s, plain_per_s = (_BATCH_EVENTS / us * 1e6 for us in (found.ours_us, found.peer_us))
    return Row(
        claim=f"append, {_BATCH_EVENTS:,} events a transaction, indexed and chained",
        goal=f"<= {_GOAL_RATIO:g}x SQLite's time",
        found=f"{per_s:,.0f}/s",
        beside=f"SQLite without index or chain {plain_per_s:,.0f}/s: {found.ratio:.1f}x its time",
        met=found.ratio <= _GOAL_RATIO,
    )


def _checking(path: Path) -> Row:
    start = time.perf_counter()
    assert verify_trail(path) == []
    took_s = time.perf_counter() - start
    num_events = 22 * _BATCH_EVENTS
    per_s = num_events / took_s
    return Row(
        claim=f"verify a chain of {num_events:,} rows",
        goal=f">= {_CHECK_GOAL_PER_S:,}/s",
        found=f"{per_s:,.0f}/s",
        beside=f"{took_s * 1e3:.0f} ms in all",
        met=per_s >= _CHECK_GOAL_PER_S,
    )


def _asking(path: Path) -> Row:
    query = Query(kinds=("decision",), seed="block2/3")
    found = compare(
        lambda: list(read_trail(path, query)), lambda: list(read_trail(path)), num_pairs=5
    )
    return Row(
        claim="decisions about one seed among them",
        goal="<= 5 ms",
        found=f"{found.ours_us / 1e3:.2f} ms",
        beside=f"reading all of them {found.peer_us / 1e3:.0f} ms: {found.ratio:.3f}x",
        met=found.ours_us <= 5000,
    )


if __name__ == "__main__":
    from bench.pairs import show

    show(TITLE, rows)
