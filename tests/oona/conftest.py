"""Real servers and real child processes for the tests of the bus."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from oona.servers.embedded import ACL_FILE, EmbeddedServer
from tests.oona.async_runs import run_watched


@pytest.fixture
def run_async() -> Callable[..., Any]:
    """Run a coroutine under watch: see `tests.oona.async_runs.run_watched`."""
    return run_watched


@pytest.fixture
def oona_server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(tmp_path / "server.log")
    yield server
    server.stop()


@pytest.fixture
def limited_server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server started with the ACL file that we ship; only its password is filled in."""
    acl_file = tmp_path / "users.acl"
    shipped = ACL_FILE.read_text()
    assert shipped.count("resetpass") == 1
    admin = "user admin on >admin ~* &* +@all\n"
    acl_file.write_text(shipped.replace("resetpass", "resetpass >secret") + admin)
    server = EmbeddedServer(tmp_path / "limited.log", acl_file=acl_file)
    yield server
    server.stop()


@pytest.fixture
def oona_url(limited_server: EmbeddedServer) -> str:
    """A server as a user who may do no more than Esper needs."""
    return limited_server.url.replace("://", "://esper:secret@")


@pytest.fixture
def admin(limited_server: EmbeddedServer) -> Iterator[redis.Redis]:
    """A client of the server behind `oona_url` who may do everything."""
    client = redis.Redis.from_url(limited_server.url.replace("://", "://admin:admin@"))
    yield client
    client.close()


@pytest.fixture
def servers_of() -> Callable[[int], list[int]]:
    """Find the direct children of a process that are named valkey-server."""

    def find(parent: int) -> list[int]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                name, _, rest = (process / "stat").read_text().partition("(")[2].rpartition(")")
            except OSError:
                continue  # ended meanwhile
            state, ppid = rest.split()[:2]
            if name == "valkey-server" and int(ppid) == parent and state != "Z":
                found.append(int(process.name))
        return found

    return find


@pytest.fixture
def wait_for_end() -> Callable[[int], bool]:
    """Wait until a process, not our child, is gone; False after five seconds."""

    def wait(pid: int) -> bool:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        try:
            return bool(select.select([descriptor], [], [], 5.0)[0])
        finally:
            os.close(descriptor)

    return wait


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start Python children; those still alive at the end are killed."""
    children: list[subprocess.Popen[bytes]] = []

    def start(code: str, *arguments: str) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()
