from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline import RunError, RunLockedError
from tolaria.disk.files import FileOps
from tolaria.disk.run import RunDirectory

ROOT = Path(__file__).parents[3]
NOW = datetime(2026, 11, 21, 14, 30, 5, tzinfo=UTC)
HOLDER = """
import os, sys
from pathlib import Path
from tolaria.disk.run import RunDirectory
run = RunDirectory.open(Path(sys.argv[1]))
worker = os.fork() if sys.argv[2] == "fork" else None
if worker is None or worker == 0:
    print("held", os.getpid(), flush=True)
sys.stdin.read()
"""
RACER = """
import sys
from pathlib import Path
from leyline import RunLockedError
from tolaria.disk.run import RunDirectory
print("ready", flush=True)
for line in sys.stdin:
    try:
        with RunDirectory.open(Path(line.strip())):
            print("won", flush=True)
            sys.stdin.readline()
    except RunLockedError:
        print("lost", flush=True)
        sys.stdin.readline()
    print("done", flush=True)
"""


@contextmanager
def child(script, *arguments):
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)
        process.stdin.close()
        process.stdout.close()


def tree_of(path):
    return {p: p.read_bytes() if p.is_file() else None for p in sorted(path.rglob("*"))}


def test_default_directories_are_dated_and_never_shared(tmp_path):
    """Three runs begun in one second get three directories, each its run's id."""
    runs = [RunDirectory.create(None, parent=tmp_path / "runs", now=NOW) for _ in range(3)]
    names = ["2026-11-21-143005", "2026-11-21-143005-2", "2026-11-21-143005-3"]
    assert [run.path for run in runs] == [tmp_path / "runs" / name for name in names]
    assert [run.run_id for run in runs] == names
    for run in runs:
        run.close()
        run.close()


def test_a_run_is_found_again_as_it_was_made(tmp_path):
    """Id and time of creation survive reopening, even after the directory is renamed."""
    with RunDirectory.create(tmp_path / "mine", now=NOW) as run:
        assert run.locked
    (tmp_path / "mine").rename(tmp_path / "moved")
    with RunDirectory.open(tmp_path / "moved") as run:
        assert (run.run_id, run.created) == ("mine", NOW)
        assert run.checkpoints == tmp_path / "moved" / "checkpoints"
    assert not run.locked


def test_two_holders_in_one_process_are_refused(tmp_path):
    """A second holder is refused with this process's id and changes nothing; readers are not."""
    with RunDirectory.create(tmp_path / "a", now=NOW):
        before = tree_of(tmp_path)
        with pytest.raises(RunLockedError, match=rf"already open in this process \({os.getpid()}"):
            RunDirectory.open(tmp_path / "a")
        with RunDirectory.open(tmp_path / "a", lock=False) as reader:
            assert not reader.locked
        assert tree_of(tmp_path) == before
    RunDirectory.open(tmp_path / "a").close()


@pytest.mark.parametrize("way", ["alone", "fork"])
def test_a_killed_holder_frees_the_run(tmp_path, way):
    """The lock names its holder's pid, and SIGKILL frees it though a forked worker lives on."""
    RunDirectory.create(tmp_path / "a", now=NOW).close()
    with child(HOLDER, tmp_path / "a", way) as holder:
        held, worker = holder.stdout.readline().split()
        assert held == "held"
        with pytest.raises(RunLockedError, match=f"in use by process {holder.pid}; "):
            RunDirectory.open(tmp_path / "a")
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        if way == "fork":
            os.kill(int(worker), 0)  # it is still there
        RunDirectory.open(tmp_path / "a").close()


@pytest.mark.fault(17)
def test_exactly_one_of_two_processes_wins(tmp_path, faults):
    """Two processes that open one run at the same moment, 200 times: one wins, one is refused."""
    RunDirectory.create(tmp_path / "a", now=NOW).close()
    with child(RACER) as first, child(RACER) as second:
        both = (first, second)
        assert [p.stdout.readline() for p in both] == ["ready\n"] * 2
        for _ in range(200):
            for p in both:
                p.stdin.write(f"{tmp_path / 'a'}\n")
            for p in both:
                p.stdin.flush()
            assert sorted(p.stdout.readline() for p in both) == ["lost\n", "won\n"]
            for p in both:
                p.stdin.write("next\n")
                p.stdin.flush()
            assert [p.stdout.readline() for p in both] == ["done\n"] * 2
            faults.injected()


def test_a_missing_run_is_named_with_those_beside_it(tmp_path):
    """The error names the missing directory and the runs that exist; an empty place says so."""
    with pytest.raises(RunError, match=r"no run at .*gone; there are no runs in"):
        RunDirectory.open(tmp_path / "gone")
    for name in ("one", "two"):
        RunDirectory.create(tmp_path / name, now=NOW).close()
    with pytest.raises(RunError, match=r"no run at .*gone; the runs in .* are: one, two"):
        RunDirectory.open(tmp_path / "gone")
    (tmp_path / "plain").mkdir()
    with pytest.raises(RunError, match=r"plain is not an Esper run \(no run.json\)"):
        RunDirectory.open(tmp_path / "plain")


def test_used_directories_are_refused_untouched(tmp_path):
    """A foreign directory, an existing run and a file are refused by name; not a byte changes."""
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("1")
    (tmp_path / "file").write_text("1")
    RunDirectory.create(tmp_path / "run", now=NOW).close()
    before = tree_of(tmp_path)
    for name, words in {
        "thesis": r"thesis is not empty and not an Esper run \(it holds 'chapter.tex'\)",
        "run": r"run already holds a run; use --resume \(.*ckpt_path=.*resume=True\)\) or another",
        "file": r"file is a file",
        "file/below": r"no run can be made in .*below: Not a directory",
        "nul\0": r"no run can be made in",
        "long" * 100: r"File name too long",
    }.items():
        with pytest.raises(RunError, match=words):
            RunDirectory.create(tmp_path / name, now=NOW)
    assert tree_of(tmp_path) == before


def test_a_run_killed_while_it_was_made_can_be_made_again(tmp_path):
    """A directory with nothing but a lock and a torn marker counts as empty."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "lock").write_text("1")
    (tmp_path / "a" / ".run.json.tmp").write_text("{")
    with RunDirectory.create(tmp_path / "a", now=NOW) as run:
        assert run.run_id == "a"


def test_the_second_of_two_creators_is_refused(tmp_path):
    """One that comes to the lock after another has made the run, and ended, does not take it."""

    class Late(FileOps):
        def lock(self, path):
            RunDirectory.create(path.parent, now=NOW).close()
            return super().lock(path)

    with pytest.raises(RunError, match="already holds a run"):
        RunDirectory.create(tmp_path / "a", now=NOW, ops=Late())
    RunDirectory.open(tmp_path / "a").close()  # the refused one has let go


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1))
@settings(max_examples=60, deadline=None)
def test_run_ids_are_safe_and_distinct(tmp_path_factory, name):
    """Any name gives an id that is safe in a key, kept as it is when it was safe already."""
    folder = tmp_path_factory.mktemp("ids")
    name = name[:60]
    if name in (".", "..") or len(name.encode()) > 255:
        return
    with RunDirectory.create(folder / name, now=NOW) as run:
        safe = r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}"
        assert re.fullmatch(safe, run.run_id)
        if re.fullmatch(safe, name):
            assert run.run_id == name
        else:
            assert re.search(r"-[0-9a-f]{8}$", run.run_id)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"[" * 30_000, "cannot be read"),
        (b'{"format":2,"run_id":"a","created":"2026-11-21T14:30:05+00:00"}', "of format 2"),
        (b'{"format":1,"run_id":"../a","created":"2026-11-21T14:30:05+00:00"}', "is damaged"),
        (b'{"format":1,"run_id":"..","created":"2026-11-21T14:30:05+00:00"}', "is damaged"),
        (b'{"format":1,"run_id":"-rf","created":"2026-11-21T14:30:05+00:00"}', "is damaged"),
        (b'{"format":1,"run_id":"a","created":"yesterday"}', "cannot be read"),
        (b'{"format":1,"run_id":"a","created":"2026-11-21","x":1}', "unknown field `x`"),
    ],
)
def test_a_damaged_marker_is_refused(tmp_path, content, words):
    """Whatever run.json holds, only RunError comes out."""
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(RunError, match=words):
        RunDirectory.open(tmp_path)
