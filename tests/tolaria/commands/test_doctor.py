"""`esper doctor` on real servers, good and bad."""

from __future__ import annotations

import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import trustme

from leyline import BusError
from oona.servers.doctor import examine
from oona.servers.embedded import ACL_FILE, EmbeddedServer
from tests.oona.faults.proxy import Proxy, url_of
from tolaria.commands.doctor import examine_server, finding_line

LOGINS = {
    "esper": "",  # from the shipped file
    "admin": "user admin on >pw ~* &* +@all\n",
    "tiny": "user tiny on >pw resetchannels -@all ~esper:* +xadd +xlen +ping\n",
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    acl_file = tmp_path / "users.acl"
    shipped = ACL_FILE.read_text().replace("resetpass", "resetpass >pw")
    acl_file.write_text(shipped + "".join(LOGINS.values()))
    server = EmbeddedServer(tmp_path / "server.log", acl_file=acl_file)
    yield server
    server.stop()


def lines(server: EmbeddedServer, user: str) -> dict[str, str]:
    findings = examine(server.url.replace("://", f"://{user}:pw@"))
    return {finding.subject: finding_line(finding) for finding in findings}


def admin_of(server: EmbeddedServer) -> redis.Redis:
    return redis.Redis.from_url(server.url.replace("://", "://admin:pw@"))


def test_the_embedded_server_is_good(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a URL the server that a run would start is looked at, and nothing is to mend."""
    with pytest.raises(SystemExit) as end:
        examine_server(None)
    told = capsys.readouterr().out.splitlines()
    assert end.value.code == 0
    assert told[-1] == "the embedded server: good for Esper"
    assert all(line.startswith("ok") for line in told[:-1])
    assert any("latency XADD  p50 " in line for line in told)


def test_the_shipped_user_is_good_and_sees_everything(server: EmbeddedServer) -> None:
    """Under the least-privilege file all that matters can be looked at, nothing is to mend, and
    nothing stays on the server."""
    found = lines(server, "esper")
    assert all(line.startswith("ok") for line in found.values()), found
    assert "EVAL" in found["dangers"]
    deadline = time.monotonic() + 5.0
    with admin_of(server) as admin:
        while admin.dbsize():  # it expires in a millisecond
            assert time.monotonic() < deadline


def test_too_many_rights_are_to_mend(server: EmbeddedServer) -> None:
    """Who may do everything is told what is not needed, and what file to use instead."""
    found = lines(server, "admin")
    assert found["dangers"].startswith("mend  dangers       allowed, and not needed: CONFIG, EVAL")
    assert str(ACL_FILE) in found["dangers"]


def test_too_few_rights_are_to_mend_and_what_they_hide_is_said(server: EmbeddedServer) -> None:
    """Who may append alone is told what to grant, what could not be seen, and what was left."""
    found = lines(server, "tiny")
    assert found["rights"].startswith("mend")
    assert "+xgroup|create" in found["rights"]
    assert "+xadd" not in found["rights"]
    for subject in ("version", "role", "memory", "eviction", "persistence"):
        assert found[subject].startswith(f"?     {subject}"), subject
    assert "may not be removed" in found["scratch"]


def test_memory_eviction_and_role_are_to_mend(server: EmbeddedServer) -> None:
    """A server without a limit, one that evicts streams and one that refuses writes are told."""
    with admin_of(server) as admin:
        admin.config_set("maxmemory", 0)
        admin.config_set("maxmemory-policy", "allkeys-lru")
        found = lines(server, "esper")
        assert found["memory"].startswith("mend  memory        ")
        assert "MiB used, no limit -> set maxmemory" in found["memory"]
        assert found["eviction"].startswith("mend  eviction      allkeys-lru -> set maxmemory-pol")
        admin.replicaof("127.0.0.1", "1")
        found = lines(server, "esper")
        assert found["role"].startswith("mend  role          a replica")
        assert found["appending"].startswith("mend  appending     refused: You can't write against")


def test_tls_is_told(server: EmbeddedServer, tmp_path: Path) -> None:
    """Over rediss:// the version is named; an authority that is not known says what to set."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with Proxy(server.socket_path, context) as proxy:
        url = url_of(proxy, "rediss", "esper:pw")
        (refused,) = examine(url)
        trusted = examine(f"{url}?ssl_ca_certs={tmp_path / 'ca.pem'}")
    assert refused.mend is not None
    assert "ESPER_REDIS_CA_FILE" in refused.mend
    assert "TLSv1.3, certificate verified" in {finding.told for finding in trusted}


def test_a_server_that_is_not_there_or_lets_nobody_in_is_told(
    server: EmbeddedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """One finding says why there is no connection, and no password is shown."""
    for url, mend in (
        ("redis://me:secret@127.0.0.1:9", "see whether it runs"),
        (server.url.replace("://", "://esper:secret@"), "ESPER_REDIS_PASSWORD_FILE"),
        (server.url, "set ESPER_REDIS_USERNAME"),
    ):
        with pytest.raises(SystemExit) as end:
            examine_server(url)
        told = capsys.readouterr().out
        assert end.value.code == 1
        assert mend in told
        assert "secret" not in told
        assert "1 thing to mend" in told


def test_a_url_that_no_server_can_have_is_refused() -> None:
    """What is no URL of a server is an error, not a finding."""
    for url in ("ftp://host", "memory", "off"):
        with pytest.raises(BusError, match="refused"):
            examine(url)


def test_the_command_ends_with_the_code(tmp_path: Path) -> None:
    """`esper doctor URL` as a process: exit code 1 for a server that is not there."""
    done = subprocess.run(
        [sys.executable, "-m", "tolaria", "doctor", f"unix://{tmp_path}/bus.sock"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "mend  connection" in done.stdout
