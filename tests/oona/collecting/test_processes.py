"""The collector as a process: killed and started again, told to stop, and left by its trainer."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from oona import Bus, count_delivered
from oona.audit.head import read_head
from oona.collecting import start_child
from oona.servers.embedded import EmbeddedServer
from tests.oona.collecting.runs import ENDED, kept, offer_run

ROOT = Path(__file__).parents[3]
Spawn = Callable[..., "subprocess.Popen[bytes]"]


def wait_for_more(process: subprocess.Popen[bytes], run_dir: Path, before: int) -> None:
    """Wait until a collector has written more than so many events."""
    deadline = time.monotonic() + 20.0
    while num_kept(run_dir) <= before:
        assert time.monotonic() < deadline, "waited in vain"
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert process.wait(0.01) is None, "it has ended"


def num_kept(run_dir: Path) -> int:
    head = read_head(run_dir / "audit.head")
    return 0 if head is None else head.num_rows


def collector(run_dir: Path) -> subprocess.Popen[bytes]:
    """The process that `start_child` starts, as a child of this one."""
    return subprocess.Popen(
        [sys.executable, "-m", "oona.collecting", str(run_dir), str(os.getpid())],
        stdin=subprocess.PIPE,
        cwd=ROOT,
    )


def end(process: subprocess.Popen[bytes], number: int) -> None:
    process.send_signal(number)
    process.wait(20)
    assert process.stdin is not None
    process.stdin.close()


@pytest.mark.slow
def test_killed_in_the_middle_and_started_again(
    oona_server: EmbeddedServer, tmp_path: Path
) -> None:
    """Killed -9 three times while events stream in: in the end every event is there once."""
    with Bus.open(tmp_path, "run", oona_server.url) as bus:
        num_events = offer_run(bus, 500, ends=False)
        for more in range(3):
            before = num_kept(tmp_path)
            process = collector(tmp_path)
            wait_for_more(process, tmp_path, before)
            num_events += offer_run(bus, 2000 + more, ends=False)
            end(process, signal.SIGKILL)
        bus.offer(ENDED)
        assert bus.flush(10.0)
        process = collector(tmp_path)
        assert process.wait(20) == 0
        end(process, 0)
    assert kept(tmp_path / "audit.db") == list(range(1, num_events + 2))


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_told_to_stop_it_ends_within_two_seconds(
    oona_server: EmbeddedServer, tmp_path: Path, number: int
) -> None:
    """SIGTERM and SIGINT: what was received is kept, the exit code is 0."""
    with Bus.open(tmp_path, "run", oona_server.url) as bus:
        process = collector(tmp_path)
        num_events = offer_run(bus, 50, ends=False)
        wait_for_more(process, tmp_path, num_events - 1)
        asked = time.monotonic()
        end(process, number)
        assert time.monotonic() - asked < 2.0
        assert process.returncode == 0
    assert kept(tmp_path / "audit.db") == list(range(1, num_events + 1))


TRAINER = """
import sys
from oona import Bus
from oona.collecting import start_child
from pathlib import Path
from tests.oona.collecting.runs import offer_run
run_dir, url = Path(sys.argv[1]), sys.argv[2]
bus = Bus.open(run_dir, "run", url)
print(start_child(run_dir).pid, flush=True)
print(offer_run(bus, 300, ends=False), flush=True)
sys.stdin.readline()
"""


def test_a_killed_trainer_leaves_a_whole_trail(
    tmp_path: Path, spawn: Spawn, wait_for_end: Callable[[int], bool]
) -> None:
    """kill -9 of the trainer, whose embedded server dies with it: the collector takes what the
    outbox still has and ends by itself; every event that was offered is there."""
    trainer = spawn(TRAINER, str(tmp_path), "embedded")
    assert trainer.stdout is not None
    pid = int(trainer.stdout.readline())
    num_events = int(trainer.stdout.readline())
    trainer.kill()
    trainer.wait(10)
    assert wait_for_end(pid)
    assert kept(tmp_path / "audit.db") == list(range(1, num_events + 1))


@pytest.mark.slow
def test_a_killed_trainer_leaves_its_server_whole_too(
    oona_server: EmbeddedServer,
    tmp_path: Path,
    spawn: Spawn,
    wait_for_end: Callable[[int], bool],
) -> None:
    """What waited in the outbox of a trainer that is killed reaches the server that outlives it, by
    the collector."""
    trainer = spawn(TRAINER, str(tmp_path), oona_server.url)
    assert trainer.stdout is not None
    pid, num_events = (int(trainer.stdout.readline()) for _ in range(2))
    trainer.kill()
    trainer.wait(10)
    assert wait_for_end(pid)
    assert count_delivered(oona_server.url, "run") == num_events
    assert kept(tmp_path / "audit.db") == list(range(1, num_events + 1))


@pytest.mark.parametrize("ends", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_child_of_a_run_ends_with_it(
    oona_server: EmbeddedServer, tmp_path: Path, ends: bool
) -> None:
    """It has written everything when `wait` returns; a run without an end is let go of as well."""
    with Bus.open(tmp_path, "run", oona_server.url) as bus:
        child = start_child(tmp_path)
        num_events = offer_run(bus, 30, ends=ends)
    assert child.wait(10.0) is None
    assert kept(tmp_path / "audit.db") == list(range(1, num_events + 1))
    assert (tmp_path / "audit.log").read_text() == ""


@pytest.mark.slow
def test_the_child_logs_in_as_the_run_does(limited_server: EmbeddedServer, tmp_path: Path) -> None:
    """The run's URL has a password, which bus.json leaves out: the child reads from the server all
    the same, as a user who may do no more than Esper needs, and the password is in no file."""
    (tmp_path / "here").symlink_to(limited_server.socket_path.parent)
    url = f"unix://esper:secret@{tmp_path}/here/bus.sock"
    run_dir = tmp_path / "run"
    with Bus.open(run_dir, "run", url) as bus:
        child = start_child(run_dir, url)
        num_events = offer_run(bus, 30, ends=False)
        assert bus.flush(5.0)
        deadline = time.monotonic() + 20.0
        while num_kept(run_dir) < num_events:
            assert time.monotonic() < deadline
            os.sched_yield()
        assert "secret" not in Path(f"/proc/{child.pid}/cmdline").read_text()
    assert child.wait(10.0) is None
    assert (run_dir / "audit.log").read_text() == ""
    files = [path.read_bytes() for path in run_dir.iterdir() if path.is_file()]
    assert not any(b"secret" in content for content in files)


def test_of_a_login_in_the_url_the_environment_changes_nothing(
    limited_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's URL has a password, so it leaves the environment's login out; so does the child,
    whatever is set, and it reads from the server."""
    (tmp_path / "here").symlink_to(limited_server.socket_path.parent)
    (tmp_path / "other").write_text("wrong")
    (tmp_path / "other").chmod(0o600)
    url = f"unix://{tmp_path}/here/bus.sock?username=esper&pass%77ord=secret"
    run_dir = tmp_path / "run"
    for name, value in (("USERNAME", "other"), ("PASSWORD_FILE", str(tmp_path / "other"))):
        monkeypatch.setenv(f"ESPER_REDIS_{name}", value)
    monkeypatch.setenv("ESPER_REDIS_PASSWORD", "wrong too")
    with Bus.open(run_dir, "run", url) as bus:
        child = start_child(run_dir, url)
        num_events = offer_run(bus, 30, ends=False)
        assert bus.flush(5.0)
        deadline = time.monotonic() + 20.0
        while num_kept(run_dir) < num_events:
            assert time.monotonic() < deadline
            os.sched_yield()
        # Only now has it surely begun: just after its start the file may still be empty.
        content = Path(f"/proc/{child.pid}/environ").read_bytes()
    assert child.wait(10.0) is None
    assert (run_dir / "audit.log").read_text() == ""
    names = {v.partition(b"=")[0] for v in content.split(b"\0") if v.startswith(b"ESPER_REDIS_")}
    assert names == {b"ESPER_REDIS_PASSWORD"}


def test_a_child_that_cannot_write_says_so(oona_server: EmbeddedServer, tmp_path: Path) -> None:
    """The reason is in its log, which `wait` names; the file in its way stays as it is."""
    (tmp_path / "audit.db").write_text("mine" * 100)
    with Bus.open(tmp_path, "run", oona_server.url) as bus:
        child = start_child(tmp_path)
        offer_run(bus, 3)
    assert child.wait(10.0) == f"the collector ended with code 1; see {tmp_path / 'audit.log'}"
    assert "audit.db cannot be used: file is not a database" in (tmp_path / "audit.log").read_text()
    assert (tmp_path / "audit.db").read_text() == "mine" * 100
