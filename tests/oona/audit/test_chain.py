"""What `verify` finds: any row altered, removed, moved or inserted, and an end cut off."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline import ConfigError, RunError
from oona.audit import AuditTrail, verify_trail
from oona.audit.chain import Chain
from oona.audit.head import Head, write_head
from oona.audit.row import Row
from oona.audit.schema import COLUMNS
from tests.oona.audit.events import enveloped, seed_report, steps

NUM_ROWS = 9
PLAIN = Chain()
KEYED = Chain(b"k" * 32)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trail of rows of several kinds."""
    path = tmp_path_factory.mktemp("written") / "audit.db"
    report = seed_report("a/0")
    with AuditTrail.open(path, PLAIN) as trail:
        assert trail.append(steps(4)) == 4
        assert trail.append(enveloped([report] * 5, first=5)) == NUM_ROWS - 4
    return path


@contextmanager
def copied(written: Path) -> Iterator[Path]:
    """A private copy of a trail and of what lies beside it."""
    with TemporaryDirectory() as directory:
        for file in written.parent.iterdir():
            shutil.copy(file, directory)
        yield Path(directory) / written.name


def change(path: Path, *statements: tuple[str, tuple[Any, ...]]) -> None:
    """Do to a trail's file what somebody with a copy of SQLite can do."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement, values in statements:
            connection.execute(statement, values)


def altered(value: object) -> object:
    """Another value of the same type; a 1 where there was none."""
    match value:
        case bytes():
            return bytes([value[0] ^ 1]) + value[1:]
        case str():
            return value + "x"
        case int():
            return value + 100
    return 1


def test_a_trail_that_nobody_touched_is_sound(written: Path) -> None:
    """Nothing is found, and looking leaves no file behind and changes none."""
    before = {file.name: file.read_bytes() for file in written.parent.iterdir()}
    assert verify_trail(written, PLAIN) == []
    assert {file.name: file.read_bytes() for file in written.parent.iterdir()} == before


@settings(max_examples=60, deadline=None)
@given(row=st.integers(1, NUM_ROWS), column=st.sampled_from(COLUMNS))
def test_any_altered_value_is_found(written: Path, row: int, column: str) -> None:
    """Whichever column of whichever row, its hash and its position among them."""
    with copied(written) as path:
        with closing(sqlite3.connect(path)) as connection:
            find = f"SELECT {column} FROM events WHERE position = ?"  # noqa: S608
            value = altered(connection.execute(find, (row,)).fetchone()[0])
        update = f"UPDATE events SET {column} = ? WHERE position = ?"  # noqa: S608
        if column == "seeds" and value == 1:
            value = "\n1\n"
        change(path, (update, (value, row)))
        assert verify_trail(path, PLAIN)


@settings(max_examples=30, deadline=None)
@given(rows=st.sets(st.integers(1, NUM_ROWS), min_size=1), closes_up=st.booleans())
def test_any_removed_rows_are_found(written: Path, rows: set[int], closes_up: bool) -> None:
    """The last ones too, and also when those that follow are numbered anew."""
    with copied(written) as path:
        change(path, *[("DELETE FROM events WHERE position = ?", (row,)) for row in rows])
        if closes_up:
            left = [row for row in range(1, NUM_ROWS + 1) if row not in rows]
            renumber = "UPDATE events SET position = ? WHERE position = ?"
            change(path, *[(renumber, (new, old)) for new, old in enumerate(left, 1)])
        assert verify_trail(path, PLAIN)


@settings(max_examples=30, deadline=None)
@given(pair=st.sets(st.integers(1, NUM_ROWS), min_size=2, max_size=2))
def test_any_swapped_rows_are_found(written: Path, pair: set[int]) -> None:
    """Two rows that change places, each with its own hash."""
    one, other = sorted(pair)
    move = "UPDATE events SET position = ? WHERE position = ?"
    with copied(written) as path:
        change(path, (move, (0, one)), (move, (one, other)), (move, (other, 0)))
        assert verify_trail(path, PLAIN)


@settings(max_examples=30, deadline=None)
@given(at=st.integers(-1, NUM_ROWS + 2))
def test_any_inserted_row_is_found(written: Path, at: int) -> None:
    """Before the first, between two or after the last, the others moved to make room."""
    shift = "UPDATE events SET position = -position - 1 WHERE position >= ?"
    back = "UPDATE events SET position = -position WHERE position < -1"
    copy = "INSERT INTO events SELECT ?, run_id, 999, " + ", ".join(COLUMNS[3:])
    with copied(written) as path:
        moves = [(shift, (at,)), (back, ())] if at >= 1 else []
        change(path, *moves, (f"{copy} FROM events WHERE sequence = 3", (at,)))
        assert verify_trail(path, PLAIN)


@pytest.mark.parametrize("row", range(1, NUM_ROWS))
def test_a_row_with_a_new_hash_of_its_own_no_longer_fits_the_next(written: Path, row: int) -> None:
    """Whoever alters a row must chain all that follow anew."""
    with copied(written) as path, closing(sqlite3.connect(path)) as connection, connection:
        find = "SELECT * FROM events WHERE position = ?"
        columns = connection.execute(find, (row,)).fetchone()
        before = connection.execute(find, (row - 1,)).fetchone() or (bytes(32),)
        forged = Row(*columns[1:-1])._replace(epoch=5)
        link = PLAIN.link(before[-1], row, forged)
        update = "UPDATE events SET epoch = 5, hash = ? WHERE position = ?"
        connection.execute(update, (link, row))
        connection.commit()
        assert f"row {row + 1} (event" in verify_trail(path, PLAIN)[0]


def drop_end(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM events WHERE position > 6")
        (link,) = connection.execute("SELECT hash FROM events WHERE position = 6").fetchone()
        seal = "UPDATE trail SET num_rows = ?, last_hash = ?, seal = ?"
        connection.execute(seal, Head.sealed(PLAIN, 6, link))


def drop_all(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM events")
        seal = "UPDATE trail SET num_rows = ?, last_hash = ?, seal = ?"
        connection.execute(seal, Head.sealed(PLAIN, 0, bytes(32)))


@pytest.mark.parametrize("cut", [drop_end, drop_all])
def test_a_cut_end_that_was_sealed_anew_is_found(
    written: Path, cut: Callable[[Path], None]
) -> None:
    """The file beside the trail still notes where it ended, and no writer goes on from there."""
    with copied(written) as path:
        cut(path)
        assert "rows were cut off" in verify_trail(path, PLAIN)[-1]
        with pytest.raises(RunError, match="no longer as it was left"):
            AuditTrail.open(path, PLAIN)


def test_a_missing_note_of_the_end_is_found(written: Path) -> None:
    """Without it a cut end would not be: nobody writes on, either."""
    with copied(written) as path:
        path.with_suffix(".head").unlink()
        assert verify_trail(path, PLAIN) == ["the file that notes where it ends is missing"]
        with pytest.raises(RunError, match="is missing"):
            AuditTrail.open(path, PLAIN)


def test_flaws_are_named_and_counted(written: Path) -> None:
    """The first few by their rows, the others as a number: a ruined trail floods nobody."""
    with copied(written) as path:
        change(path, ("UPDATE events SET lane = 3 WHERE position = 4", ()))
        (flaw,) = verify_trail(path, PLAIN)
        assert "row 4 (event 4 of run 'run') is not the one written there" in flaw
        change(path, ("UPDATE events SET lane = 7", ()))
        flaws = verify_trail(path, PLAIN)
        assert len(flaws) == 6
        assert flaws[-1] == f"and {NUM_ROWS - 5} more flaws"


def test_without_its_key_nobody_can_alter_a_row(tmp_path: Path) -> None:
    """Whoever chains everything anew without the key, or with another, is found out."""
    path = tmp_path / "audit.db"
    with AuditTrail.open(path, KEYED) as trail:
        trail.append(steps(3))
    assert verify_trail(path, KEYED) == []
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE events SET step = 77 WHERE position = 3")
        row = connection.execute("SELECT * FROM events WHERE position = 3").fetchone()
        (before,) = connection.execute("SELECT hash FROM events WHERE position = 2").fetchone()
        forged = PLAIN.link(before, 3, Row(*row[1:-1]))
        connection.execute("UPDATE events SET hash = ? WHERE position = 3", (forged,))
        head = Head.sealed(PLAIN, 3, forged)
        connection.execute("UPDATE trail SET num_rows = ?, last_hash = ?, seal = ?", head)
    write_head(path.with_suffix(".head"), head)
    assert "row 3 (event 3" in verify_trail(path, KEYED)[0]


def test_a_key_is_asked_for_and_another_is_refused(tmp_path: Path) -> None:
    """Neither written to nor checked with the wrong one; the right one still fits."""
    path = tmp_path / "audit.db"
    AuditTrail.open(path, KEYED).close()
    for chain, words in ((PLAIN, "set ESPER_AUDIT_KEY"), (Chain(b"o"), "another key")):
        assert words in verify_trail(path, chain)[0]
        with pytest.raises(RunError, match=words):
            AuditTrail.open(path, chain)
    AuditTrail.open(path, KEYED).close()
    plain = tmp_path / "plain.db"
    AuditTrail.open(plain, PLAIN).close()
    with pytest.raises(RunError, match="begun without a key"):
        AuditTrail.open(plain, KEYED)


def test_the_key_comes_from_the_environment_and_is_kept_nowhere(tmp_path: Path) -> None:
    """The same text gives the same chain; too short a key is refused without being shown."""
    secret = "a long enough secret"  # noqa: S105 -- of this test
    one = Chain.from_environment({"ESPER_AUDIT_KEY": secret})
    other = Chain.from_environment({"ESPER_AUDIT_KEY": secret})
    assert one.key_check == other.key_check != b""
    with AuditTrail.open(tmp_path / "audit.db", one) as trail:
        trail.append(steps(2))
    assert not any(secret.encode() in file.read_bytes() for file in tmp_path.iterdir())
    with pytest.raises(ConfigError, match="has 4 characters") as refused:
        Chain.from_environment({"ESPER_AUDIT_KEY": "shor"})
    assert "'shor'" not in str(refused.value)
    assert Chain.from_environment({}).key_check == b""
