"""A real PostgreSQL server, where one is installed, and trails with something in them."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PASSWORD = "not-for-any-log"  # noqa: S105 -- of a server that lives for a test


def _owner() -> int | None:
    """Who runs the server, which refuses to run as root; None: whoever we are."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    pytest.skip("PostgreSQL does not run as root, and there is no user postgres or nobody")


def _is_ready(status: Path) -> bool:
    return status.exists() and status.read_text().rstrip().endswith("ready")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server on a socket in a directory of its own."""
    initdb, postgres = shutil.which("initdb"), shutil.which("postgres")
    if initdb is None or postgres is None:
        pytest.skip("no PostgreSQL is installed: initdb and postgres are not on the PATH")
    owner = _owner()
    directory = Path(tempfile.mkdtemp(prefix="esper-pg-", dir="/tmp"))
    try:
        password_file = directory / "password"
        password_file.write_text(PASSWORD)
        if owner is not None:
            for path in (directory, password_file):
                os.chown(path, owner, -1)
        data = directory / "data"
        login = ["--username=esper", "--auth=scram-sha-256", f"--pwfile={password_file}"]
        subprocess.run(
            [initdb, f"--pgdata={data}", "--no-sync", "--encoding=UTF8", *login],
            user=owner,
            cwd=directory,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        options = [f"-k{directory}", "-clisten_addresses=", "-cfsync=off"]
        with (directory / "log").open("wb") as log:
            server = subprocess.Popen(
                [postgres, f"-D{data}", *options], user=owner, cwd=directory, stderr=log
            )
        try:
            deadline = time.monotonic() + 20
            while not _is_ready(data / "postmaster.pid"):
                assert time.monotonic() < deadline, (directory / "log").read_text()
                assert server.poll() is None, (directory / "log").read_text()
                os.sched_yield()
            yield f"postgresql://esper:{PASSWORD}@/postgres?host={directory}"
        finally:
            server.send_signal(signal.SIGQUIT)
            server.wait(10)
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """The URL of a database in which nothing is."""
    import psycopg

    with psycopg.connect(postgres_server) as connection:
        connection.execute("DROP SCHEMA IF EXISTS esper_audit CASCADE")
    return postgres_server
