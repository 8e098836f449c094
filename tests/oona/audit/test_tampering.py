"""Hands on a trail's own tables: the end is under the key's seal, and no change is a traceback."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest

from leyline import RunError
from oona.audit import AuditTrail, find_gaps, known_seeds, read_trail, verify_trail
from oona.audit.chain import Chain
from oona.audit.head import head_path
from oona.audit.schema import ROW
from tests.oona.audit.events import enveloped, seed_report, steps

KEYED = Chain(b"k" * 32)
PLAIN = Chain()


def a_trail(path: Path, chain: Chain) -> Path:
    with AuditTrail.open(path, chain) as trail:
        trail.append(steps(9))
        trail.append(enveloped([seed_report("a/0")], first=10))
    return path


def cut(path: Path, num_rows: int, seal: bytes) -> None:
    """Take the last rows away and note that end everywhere, with a seal."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM events WHERE position > ?", (num_rows,))
        find = "SELECT hash FROM events WHERE position = ?"
        (last,) = connection.execute(find, (num_rows,)).fetchone() or (bytes(32),)
        connection.execute(
            "UPDATE trail SET num_rows = ?, last_hash = ?, seal = ?", (num_rows, last, seal)
        )
    head = {"num_rows": num_rows, "last_hash": last.hex(), "seal": seal.hex()}
    head_path(path).write_text(json.dumps(head))


@pytest.mark.parametrize("num_rows", [0, 7, 9])
def test_without_its_key_nobody_can_seal_another_end(tmp_path: Path, num_rows: int) -> None:
    """The last rows cut off and both notes of the end changed to fit, with the seal that was there
    and with one of a chain without a key: found by `verify`, and no writer goes on."""
    for number in range(2):
        path = a_trail(tmp_path / f"{number}.db", KEYED)
        was = bytes.fromhex(json.loads(head_path(path).read_text())["seal"])
        with closing(sqlite3.connect(path)) as connection:
            find = "SELECT hash FROM events WHERE position = ?"
            (last,) = connection.execute(find, (num_rows,)).fetchone() or (bytes(32),)
        cut(path, num_rows, was if number else PLAIN.seal(num_rows, last))
        assert "does not have the seal" in "".join(verify_trail(path, KEYED))
        with pytest.raises(RunError, match="not both under the seal of its writer"):
            AuditTrail.open(path, KEYED)


def test_a_forged_note_beside_a_sound_table_is_found(tmp_path: Path) -> None:
    """The file alone, with a row and a hash that are in the trail."""
    path = a_trail(tmp_path / "audit.db", KEYED)
    content = json.loads(head_path(path).read_text())
    head_path(path).write_text(json.dumps(content | {"seal": "00" * 32}))
    (flaw,) = verify_trail(path, KEYED)
    assert flaw.startswith("the end noted with row 10 does not have the seal")
    head_path(path).write_text(json.dumps(content))
    assert verify_trail(path, KEYED) == []


def remade(table: str, columns: str, select: str) -> list[str]:
    """Statements that make a table anew without its types."""
    return [
        f"CREATE TABLE other ({columns})",
        f"INSERT INTO other SELECT {select} FROM {table}",  # noqa: S608 -- our own names
        f"DROP TABLE {table}",
        f"ALTER TABLE other RENAME TO {table}",
    ]


TRAIL = "id, format, num_rows, last_hash, seal, key_check"
TAMPERED = {
    "no head": ["DELETE FROM trail"],
    "no table of the head": ["DROP TABLE trail"],
    "no table of events": ["DROP TABLE events"],
    "no seal": ["ALTER TABLE trail DROP COLUMN seal"],
    "no format": ["ALTER TABLE trail DROP COLUMN format"],
    "no hash": ["ALTER TABLE events DROP COLUMN hash"],
    "format a text": remade("trail", TRAIL, "id, '2', num_rows, last_hash, seal, key_check"),
    "key check a text": remade("trail", TRAIL, "id, format, num_rows, last_hash, seal, ''"),
    "rows a text": remade("trail", TRAIL, "id, format, 'x', last_hash, seal, key_check"),
    "hash nothing": remade("trail", TRAIL, "id, format, num_rows, NULL, seal, key_check"),
    "positions texts": remade("events", ROW, f"'x' || {ROW}"),
    "hashes texts": remade("events", ROW, ROW.removesuffix("hash") + "hex(hash)"),
    "events numbers": remade("events", ROW, ROW.replace("envelope", "7")),
    "seeds numbers": remade("events", ROW, ROW.replace("seeds", "7")),
    "sequences texts": remade("events", ROW, ROW.replace("sequence", "sequence || '.5x'")),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_no_tampering_with_the_tables_is_a_traceback(tmp_path: Path, what: str) -> None:
    """A table, a column or the head's row gone, or other types in them: `verify` has words for it,
    readers and writers raise a RunError at most, and the writer leaves the file as it is."""
    path = a_trail(tmp_path / "audit.db", PLAIN)
    with closing(sqlite3.connect(path)) as connection:
        for statement in TAMPERED[what]:
            connection.execute(statement)
        connection.commit()
    before = path.read_bytes()
    flaws = verify_trail(path, PLAIN)
    assert flaws
    assert all(flaws)

    def write() -> None:
        AuditTrail.open(path, PLAIN).close()

    looks = (lambda: list(read_trail(path)), lambda: find_gaps(path), lambda: known_seeds(path))
    for use in (*looks, write):
        with suppress(RunError):
            use()
    assert path.read_bytes() == before


def test_a_deleted_head_is_named(tmp_path: Path) -> None:
    """With what is wrong and what to do."""
    path = a_trail(tmp_path / "audit.db", PLAIN)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM trail")
    (flaw,) = verify_trail(path, PLAIN)
    assert "its table trail is empty" in flaw
    assert "to have the trail written anew" in flaw
