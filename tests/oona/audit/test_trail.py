"""The audit trail's file: whole batches, each event once, through kills and full disks."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import leyline
from leyline import RunError, RunLockedError
from oona.audit import AuditTrail, find_gaps, read_trail, verify_trail
from oona.audit.query import Query
from oona.audit.row import row_of
from oona.audit.schema import COLUMNS
from tests.leyline.examples import exact, messages
from tests.oona.audit.events import enveloped, seed_report, steps

Spawn = Callable[..., "subprocess.Popen[bytes]"]


def sequences(path: Path) -> list[int]:
    return [envelope.sequence for envelope in read_trail(path)]


@settings(max_examples=10, deadline=None)
@given(batches=st.lists(st.lists(st.integers(1, 30), max_size=12), max_size=8))
def test_batches_with_duplicates_leave_each_event_once(batches: list[list[int]]) -> None:
    """However events are batched and repeated, the trail is their set, and its chain is sound;
    `append` says how many were new, also to a trail that was opened again."""
    known: set[int] = set()
    events = steps(30)
    with TemporaryDirectory() as directory:
        path = Path(directory) / "audit.db"
        AuditTrail.open(path).close()
        for batch in batches:
            with AuditTrail.open(path) as trail:
                new = set(batch) - known
                assert trail.append(events[number - 1] for number in batch) == len(new)
                known |= new
        assert list(read_trail(path)) == [events[number - 1] for number in sorted(known)]
        assert verify_trail(path) == []


@settings(max_examples=15, deadline=None)
@given(events=st.lists(messages(leyline.Envelope), max_size=4))
def test_any_message_that_the_contract_has_is_kept_to_the_bit(
    events: list[leyline.Envelope],
) -> None:
    """Hostile numbers and texts too: what cannot be numbered is counted, nothing fails."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "audit.db"
        with AuditTrail.open(path) as trail:
            trail.append(events)
            num_refused = trail.num_refused
        kept = {(e.run_id, e.sequence): e for e in reversed(events) if row_of(e) is not None}
        assert num_refused == sum(not 1 <= e.sequence < 2**63 for e in events)
        found = {(e.run_id, e.sequence): e for e in read_trail(path)}
        assert {key: exact(e) for key, e in found.items()} == {k: exact(e) for k, e in kept.items()}
        assert verify_trail(path) == []


def test_a_second_writer_is_refused_and_readers_are_not(tmp_path: Path) -> None:
    """The first goes on undisturbed; what it has committed can be read and checked meanwhile."""
    path = tmp_path / "audit.db"
    with AuditTrail.open(path) as trail:
        trail.append(steps(3))
        with pytest.raises(RunLockedError, match="has a writer already"):
            AuditTrail.open(path)
        assert sequences(path) == [1, 2, 3]
        assert trail.verify() == []
        assert trail.append(steps(5)) == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "audit.db",
        "audit.head",
        "audit.lock",
    ]


APPENDING = """
import sys
from pathlib import Path
from leyline import RunLockedError
from oona.audit import AuditTrail
from tests.oona.audit.events import steps
for number in range(12):
    while True:
        try:
            with AuditTrail.open(Path(sys.argv[1])) as trail:
                trail.append(steps(10 * number + 10))
            break
        except RunLockedError:
            pass
"""


def test_two_processes_take_turns(tmp_path: Path, spawn: Spawn) -> None:
    """Both append the same growing history at once: every event is there once, soundly chained."""
    path = tmp_path / "audit.db"
    children = [spawn(APPENDING, str(path)) for _ in range(2)]
    assert [child.wait(60) for child in children] == [0, 0]
    assert sequences(path) == list(range(1, 121))
    assert verify_trail(path) == []


KILLED = """
import sys
from pathlib import Path
from oona.audit import AuditTrail
from tests.oona.audit.events import steps
with AuditTrail.open(Path(sys.argv[1])) as trail:
    first = int(sys.argv[2])
    for number in range(10_000):
        trail.append(steps(50, first=first + 50 * number))
        print(first + 50 * number + 49, flush=True)
"""


@pytest.mark.parametrize("num_kills", [3, pytest.param(25, marks=pytest.mark.slow)])
def test_kill_leaves_whole_batches_and_a_sound_chain(
    tmp_path: Path, spawn: Spawn, num_kills: int
) -> None:
    """What `append` has returned from is there, whatever happens next; the next writer goes on."""
    path, last = tmp_path / "audit.db", 0
    for number in range(num_kills):
        child = spawn(KILLED, str(path), str(last + 1))
        assert child.stdout is not None
        for _ in range(1 + number % 7):
            told = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        child.wait(10)
        assert verify_trail(path) == []
        kept = sequences(path)
        assert kept == list(range(1, len(kept) + 1))
        assert len(kept) >= told
        assert len(kept) % 50 == 0
        last = len(kept)


FULL = """
import resource, sys
from pathlib import Path
from leyline import RunError
from oona.audit import AuditTrail
from tests.oona.audit.events import steps
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
trail = AuditTrail.open(Path(sys.argv[1]))
num = 0
try:
    while True:
        num += trail.append(steps(200, first=num + 1))
except RunError as error:
    print(num, error)
"""


def test_a_full_disk_keeps_the_batches_before_and_says_so(tmp_path: Path, spawn: Spawn) -> None:
    """The system refuses to let the file grow: the batch is not there, those before it are, and
    with room again the writer goes on."""
    path = tmp_path / "audit.db"
    child = spawn(FULL, str(path))
    said = child.communicate(timeout=60)[0].decode()
    num, _, error = said.partition(" ")
    assert int(num) >= 200
    assert "nothing of this batch was kept: free some space" in error
    assert str(path) in error
    assert sequences(path) == list(range(1, int(num) + 1))
    with AuditTrail.open(path) as trail:
        assert trail.append(steps(int(num) + 200)) == 200
    assert verify_trail(path) == []


def test_a_database_without_room_keeps_all_or_nothing(tmp_path: Path) -> None:
    """SQLite itself finds no page: the same writer goes on once there is room."""
    path = tmp_path / "audit.db"
    with AuditTrail.open(path) as trail:
        trail.append(steps(10))
        trail._connection.execute("PRAGMA max_page_count=12")
        with pytest.raises(RunError, match="is full; nothing of this batch was kept"):
            trail.append(steps(2000))
        trail._connection.execute("PRAGMA max_page_count=100000")
        assert trail.append(steps(2000)) == 1990
    assert verify_trail(path) == []


def test_a_row_that_a_stranger_wrote_stops_the_writer(tmp_path: Path) -> None:
    """Somebody wrote where the next row belongs: the batch is refused whole, not chained onto it;
    once that row is gone the same writer goes on."""
    path = tmp_path / "audit.db"
    others = ", ".join(COLUMNS[3:])
    copy = f"INSERT INTO events SELECT 5, run_id, 99, {others} FROM events"  # noqa: S608
    with AuditTrail.open(path) as trail, closing(sqlite3.connect(path)) as stranger:
        trail.append(steps(3))
        stranger.execute(f"{copy} WHERE position = 3")
        stranger.commit()
        with pytest.raises(RunError, match="UNIQUE constraint failed"):
            trail.append(steps(8))
        assert len(sequences(path)) == 4
        stranger.execute("DELETE FROM events WHERE position = 5")
        stranger.commit()
        assert trail.append(steps(8)) == 5
        assert trail.verify() == []


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (x)")


def newer(path: Path) -> None:
    AuditTrail.open(path).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE trail SET format = 9")


def garbage(path: Path) -> None:
    path.write_bytes(b"no database" * 1000)


def torn(path: Path) -> None:
    with AuditTrail.open(path) as trail:
        trail.append(steps(500))
    content = bytearray(path.read_bytes())
    content[100:4096] = bytes(3996)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (foreign, "a database of something else"),
        (newer, "has format 9, this version of Esper knows 2"),
        (garbage, "file is not a database; it is left as it is"),
        (torn, "malformed"),
    ],
)
def test_what_is_no_trail_is_refused_and_left_alone(
    tmp_path: Path, make: Callable[[Path], None], words: str
) -> None:
    """Not a byte of it changes: it may be all that is left of something."""
    path = tmp_path / "audit.db"
    make(path)
    before = path.read_bytes()
    with pytest.raises(RunError, match=words) as refused:
        AuditTrail.open(path)
    assert str(path) in str(refused.value)
    with pytest.raises(RunError, match=words):
        list(read_trail(path))
    assert words in verify_trail(path)[0]
    assert path.read_bytes() == before


def test_a_writer_that_was_killed_as_it_made_the_file_is_no_matter(tmp_path: Path) -> None:
    """An empty file, or one whose header alone was written, becomes a trail."""
    (tmp_path / "empty.db").touch()
    with closing(sqlite3.connect(tmp_path / "begun.db")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    for name in ("empty.db", "begun.db"):
        assert verify_trail(tmp_path / name) == []
        with AuditTrail.open(tmp_path / name) as trail:
            assert trail.append(steps(2)) == 2
            assert trail.verify() == []


def test_gaps_are_exact(tmp_path: Path) -> None:
    """Every sequence below the last that has no event, run by run; one filled late is none."""
    path = tmp_path / "audit.db"
    events, others = steps(20), steps(4, run_id="other")
    with AuditTrail.open(path) as trail:
        trail.append([events[number - 1] for number in (3, 4, 6, 10, 20)])
        trail.append(others)
        assert find_gaps(path) == [
            ("run", 1, 2),
            ("run", 5, 5),
            ("run", 7, 9),
            ("run", 11, 19),
        ]
        trail.append(events[:9])
        assert find_gaps(path) == [("run", 11, 19)]


READING = """
import os, sys
from pathlib import Path
from oona.audit import read_trail, verify_trail
if os.geteuid() == 0:
    os.setuid(65534)
path = Path(sys.argv[1])
print(verify_trail(path), [e.event.seed for e in read_trail(path)], os.access(path, os.W_OK))
"""


def test_readers_see_a_trail_that_they_may_not_write_beside(spawn: Spawn) -> None:
    """A copy in an archive whose files and folder are read-only is read and checked."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "audit.db"
        with AuditTrail.open(path) as trail:
            trail.append(enveloped([seed_report("a/0")]))
        for file in (path, path.with_suffix(".head")):
            file.chmod(0o444)
        path.parent.chmod(0o555)
        shown = spawn(READING, str(path)).communicate(timeout=30)[0].decode()
        path.parent.chmod(0o755)
    assert shown.split() == ["[]", "['a/0']", "False"]


def test_query_finds_what_meets_every_condition(tmp_path: Path) -> None:
    """By kind, seed, epoch, time and number, alone and together, in order of time."""
    path = tmp_path / "audit.db"
    decision = leyline.Decision(
        epoch=3,
        policy="heuristic",
        cause="",
        commands=(leyline.Cull(seed="a/1", cause="", embargo_epochs=2),),
    )
    events = enveloped(
        [seed_report("a/1"), seed_report("a/10"), decision, seed_report("a/1", epoch=3)]
    )
    with AuditTrail.open(path) as trail:
        trail.append(reversed(events))
        trail.append(steps(3, first=5))

    def found(**conditions: object) -> list[int]:
        query = Query(**conditions)  # type: ignore[arg-type]
        return [envelope.sequence for envelope in read_trail(path, query)]

    assert found() == [1, 2, 3, 4, 5, 6, 7]
    assert found(kinds=("decision",)) == [3]
    assert found(kinds=("decision", "step")) == [3, 5, 6, 7]
    assert found(seed="a/1") == [1, 3, 4]
    assert found(seed="a/10") == [2]
    assert found(seed="A/1") == found(seed="a") == []
    assert found(epoch=3) == [3, 4]
    assert found(since_ns=events[2].wall_ns) == [3, 4, 5, 6, 7]
    assert found(limit=2) == [6, 7]
    assert found(kinds=("seed_report",), seed="a/1", epoch=3, limit=5) == [4]
