"""The embedded server and its end."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from oona.servers.embedded import EmbeddedServer
from oona.streams.transport import ServerError

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs prctl and /proc")


def test_it_serves_streams_on_a_private_socket_only(tmp_path: Path) -> None:
    """The server answers on a socket that only its user reaches, keeps nothing, has no TCP."""
    server = EmbeddedServer(tmp_path / "server.log")
    directory = server.socket_path.parent
    assert len(os.fsencode(server.socket_path)) < 108
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    client = redis.Redis.from_url(server.url)
    settings = client.config_get("*")
    client.close()
    assert settings["port"] == "0"
    assert settings["save"] == ""
    assert settings["maxmemory"] == str(64 * 1024 * 1024)
    assert settings["maxmemory-policy"] == "noeviction"
    assert (tmp_path / "server.log").read_text()
    server.stop()
    assert not directory.exists()
    server.stop()


@linux_only
def test_it_is_our_child_under_its_own_name(
    oona_server: EmbeddedServer, servers_of: Callable[[int], list[int]]
) -> None:
    """The server is a direct child named valkey-server, out of reach of the terminal's Ctrl-C."""
    assert servers_of(os.getpid()) == [oona_server.pid]
    assert os.getpgid(oona_server.pid) != os.getpgid(0)


PARENT = """
import pathlib, sys
import oona.servers.embedded
if sys.argv[3] == "no signal":
    oona.servers.embedded._KERNEL_TELLS = False
server = oona.servers.embedded.EmbeddedServer(pathlib.Path(sys.argv[1]))
watcher = server._watcher.pid if server._watcher else server.pid
print(server.pid, watcher, server.socket_path, flush=True)
if sys.argv[2] == "wait":
    sys.stdin.read()
    import threading; threading.Event().wait()
"""


@linux_only
@pytest.mark.parametrize("system", ["linux", "no signal"])
@pytest.mark.parametrize("end", ["killed", "exits"])
def test_it_dies_with_its_parent(
    tmp_path: Path,
    end: str,
    system: str,
    spawn: Callable[..., subprocess.Popen[bytes]],
    wait_for_end: Callable[[int], bool],
) -> None:
    """kill -9 of the parent, or its ordinary exit, ends the server within seconds; also where the
    kernel has no signal for it, as on macOS, and then what watched the parent ends too."""
    how = "wait" if end == "killed" else "go"
    parent = spawn(PARENT, str(tmp_path / "server.log"), how, system)
    assert parent.stdout is not None
    pid, watcher, socket_path = parent.stdout.readline().split()
    assert (watcher != pid) == (system == "no signal")
    if end == "killed":
        os.kill(int(pid), 0)
        parent.kill()
    parent.wait(10)
    assert wait_for_end(int(pid))
    assert wait_for_end(int(watcher))
    directory = Path(socket_path.decode()).parent
    if end == "killed":
        directory.rmdir()  # left behind, but empty
    assert not directory.exists()


def test_stopping_it_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a second process watches the parent, it has ended when `stop` returns."""
    monkeypatch.setattr("oona.servers.embedded._KERNEL_TELLS", False)
    server = EmbeddedServer(tmp_path / "server.log")
    watcher = server._watcher
    assert watcher is not None
    assert watcher.poll() is None
    server.stop()
    assert watcher.returncode is not None


def test_a_server_that_cannot_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket path that is too long is an error that names it, and leaves nothing behind."""
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with pytest.raises(ServerError, match="too long"):
        EmbeddedServer(tmp_path / "server.log")
    assert list(deep.iterdir()) == []


def test_no_place_for_the_socket_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory for temporary files that has gone is a ServerError like every other reason."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(ServerError, match=r"not started: .*No such file.*gone/esper-oona-"):
        EmbeddedServer(tmp_path / "server.log")


@pytest.mark.parametrize("is_read", [True, False], ids=["read", "unread"])
def test_a_pipe_in_place_of_the_log_is_refused_at_once(tmp_path: Path, is_read: bool) -> None:
    """A log that is no regular file holds nothing up, whether somebody reads it or not."""
    log = tmp_path / "server.log"
    os.mkfifo(log)
    reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK) if is_read else None
    told: list[str] = []

    def start() -> None:
        with pytest.raises(ServerError) as caught:
            EmbeddedServer(log)
        told.append(str(caught.value))

    starting = threading.Thread(target=start, daemon=True)
    starting.start()
    starting.join(5.0)
    assert told == [f"embedded server not started: the log {log} is no regular file; remove it"]
    if reader is not None:
        os.close(reader)


def test_what_fails_after_the_start_ends_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a file descriptor left to ask the new server on, it does not run on."""
    started: list[subprocess.Popen[bytes]] = []
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    class Starving(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **options: Any):
            super().__init__(*args, **options)
            started.append(self)
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))

    monkeypatch.setattr("subprocess.Popen", Starving)
    try:
        with pytest.raises(ServerError, match=r"not started: .*Too many open files"):
            EmbeddedServer(tmp_path / "server.log")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    (server,) = started
    is_running = server.returncode is None
    server.kill()
    assert not is_running


def test_a_start_clears_away_what_killed_ones_have_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old directories of this user that are empty, or whose socket nobody serves, are removed; a
    live server's, a new one's, one with other files, a link and another user's stay."""
    root = Path(tempfile.mkdtemp(prefix="t-"))
    monkeypatch.setattr("tempfile.tempdir", str(root))
    live = EmbeddedServer(tmp_path / "live.log")
    names = ("empty", "dead", "new", "full", "foreign")
    empty, dead, new, full, foreign = (root / f"esper-oona-{name}" for name in names)
    for directory in (empty, dead, new, full, foreign):
        directory.mkdir(mode=0o700)
    for place in (dead, new):
        with socket.socket(socket.AF_UNIX) as abandoned:
            abandoned.bind(str(place / "bus.sock"))
    (full / "notes").write_text("mine")
    (root / "esper-oona-link").symlink_to(tmp_path)
    for directory in (empty, dead, full, foreign, live.socket_path.parent):
        os.utime(directory, (1, 1))
    is_root = os.getuid() == 0
    if is_root:
        os.chown(foreign, 12345, 12345)
    EmbeddedServer(tmp_path / "second.log").stop()
    with redis.Redis.from_url(live.url) as client:
        assert client.ping()
    live.stop()
    left = {path.name.removeprefix("esper-oona-") for path in root.iterdir()}
    assert left == {"new", "full", "link"} | ({"foreign"} if is_root else set())
    shutil.rmtree(root)
