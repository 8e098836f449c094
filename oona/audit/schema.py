"""The tables of an audit trail, in the SQL that SQLite and PostgreSQL share."""

from __future__ import annotations

from typing import Final

from oona.audit.row import Row

FORMAT: Final = 2
COLUMNS: Final = ("position", *Row._fields, "hash")
ROW: Final = ", ".join(COLUMNS)
ALL_ROWS: Final = f"SELECT {ROW} FROM events ORDER BY position"  # noqa: S608 -- our own names
HEAD: Final = "SELECT num_rows, last_hash, seal FROM trail"

_EVENTS: Final = """
CREATE TABLE events (
    position {integer} PRIMARY KEY,
    run_id {text} NOT NULL,
    sequence {integer} NOT NULL,
    lane {integer} NOT NULL,
    kind {text} NOT NULL,
    seeds {text},
    epoch {integer},
    step {integer},
    wall_ns {integer} NOT NULL,
    monotonic_ns {integer} NOT NULL,
    envelope {bytes} NOT NULL,
    hash {bytes} NOT NULL,
    UNIQUE (run_id, sequence)
){strict}"""

_TRAIL: Final = """
CREATE TABLE trail (
    id {integer} PRIMARY KEY CHECK (id = 1),
    format {integer} NOT NULL,
    num_rows {integer} NOT NULL,
    last_hash {bytes} NOT NULL,
    seal {bytes} NOT NULL,
    key_check {bytes} NOT NULL
){strict}"""

_INDICES: Final = (
    "CREATE INDEX by_time ON events (wall_ns, sequence)",
    "CREATE INDEX by_kind ON events (kind, wall_ns, sequence)",
    "CREATE INDEX by_epoch ON events (epoch, wall_ns, sequence) WHERE epoch IS NOT NULL",
    "CREATE INDEX by_seeds ON events (wall_ns, sequence) WHERE seeds IS NOT NULL",
)


def statements(*, integer: str, text: str, binary: str, strict: str) -> list[str]:
    """What makes the tables in a dialect, without a row in them yet."""
    names = {
        "integer": integer,
        "text": text,
        "bytes": binary,
        "strict": strict,
    }
    return [statement.format_map(names) for statement in (_EVENTS, _TRAIL, *_INDICES)]
