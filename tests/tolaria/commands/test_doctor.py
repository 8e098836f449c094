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
        ("redis://me:secret@127.0.0.1:9", "see whether it runs, and listens at this address\n"),
        ("rediss://me:secret@127.0.0.1:9", "see whether it runs, and listens at this address\n"),
        (server.url.replace("://", "://esper:secret@"), "user from the URL, password from the URL"),
        (server.url, "set ESPER_REDIS_USERNAME and ESPER_REDIS_PASSWORD (or ESPER_REDIS_PASSWORD_"),
    ):
        with pytest.raises(SystemExit) as end:
            examine_server(url)
        told = capsys.readouterr().out
        assert end.value.code == 1
        assert mend in told
        assert "secret" not in told
        assert "1 thing to mend" in told


def test_a_login_s_places_are_named(
    server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login that fails is looked for where it came from, and no place is named that was not
    read; a user without a password is told where it may be."""
    password_file = tmp_path / "password"
    password_file.write_text("wrong")
    password_file.chmod(0o600)
    user, password, in_file = "ESPER_REDIS_USERNAME", "ESPER_REDIS_PASSWORD", str(password_file)
    lone = "the user from the URL has no password: write it in the URL, or set ESPER_REDIS_PASSWORD"
    none = "user default, as none came with the password"
    with Proxy(server.socket_path) as proxy:
        for login, variables, mend in (
            ("esper", {}, f"{lone} (or ESPER_REDIS_PASSWORD_FILE)"),
            ("esper", {password: "wrong"}, f"user from the URL, password from {password}"),
            ("", {user: "esper", password: "wrong"}, f"user from {user}, password from {password}"),
            ("", {f"{password}_FILE": in_file}, f"{none}, password from {password}_FILE"),
            (":wrong", {user: "esper"}, f"{none}, password from the URL"),
        ):
            with monkeypatch.context() as patch:
                for name, value in variables.items():
                    patch.setenv(name, value)
                (refused,) = examine(f"redis://{login}@localhost:{proxy.port}")
            assert refused.mend is not None
            assert refused.mend.removeprefix("look at the login: ") == mend


def test_what_is_spoken_to_the_wrong_server_is_told(server: EmbeddedServer) -> None:
    """TLS to a server without it, and plain text to one that speaks TLS alone, are each told."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    with Proxy(server.socket_path) as plain, Proxy(server.socket_path, context) as encrypted:
        (silent,) = examine(url_of(plain, "rediss", "esper:pw"))
        (hung_up,) = examine(url_of(encrypted, "redis", "esper:pw"))
    assert str(silent.mend).endswith("perhaps it speaks no TLS: use redis:// if so")
    assert str(hung_up.mend).endswith("perhaps it speaks TLS alone: use rediss:// if so")


def test_what_is_kept_on_disk_is_told(server: EmbeddedServer) -> None:
    """Nothing, snapshots or an append-only file; whoever may not ask for it is not told a guess."""
    told = {}
    with admin_of(server) as admin:
        for appends, save in (("no", ""), ("no", "3600 1"), ("yes", "")):
            admin.config_set("save", save)
            admin.config_set("appendonly", appends)
            users = ("admin", "esper")
            told[appends, save] = [lines(server, user)["persistence"] for user in users]
        admin.config_set("appendonly", "no")
    unseen = "ok    persistence   no append-only file, snapshots not seen (CONFIG); what a restart"
    for (appends, save), words in {
        ("no", ""): "none, nothing is on disk; what a restart",
        ("no", "3600 1"): "snapshots; what a restart",
        ("yes", ""): "an append-only file; what a restart",
    }.items():
        by_admin, by_esper = told[appends, save]
        assert by_admin.startswith(f"ok    persistence   {words}")
        assert by_esper == by_admin if appends == "yes" else by_esper.startswith(unseen)


def test_a_terminal_s_width_is_kept(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At a terminal of 80 columns no line is wider, and further ones begin below what is told; in
    a pipe each finding is one line."""
    url = server.url.replace("://", "://tiny:pw@")
    monkeypatch.setenv("COLUMNS", "80")
    shown = []
    for is_terminal in ("0", "1"):
        monkeypatch.setenv("TTY_COMPATIBLE", is_terminal)
        with pytest.raises(SystemExit):
            examine_server(url)
        shown.append(capsys.readouterr().out.splitlines()[:-1])
    piped, terminal = shown
    assert all(line.startswith(("ok", "mend", "?")) for line in piped)
    lengths = [len(line) for line in terminal if str(ACL_FILE) not in line]  # it may be longer
    assert max(lengths) <= 80 < max(map(len, piped))
    (mend,) = (index for index, line in enumerate(terminal) if line.startswith("mend  rights"))
    assert f"{' ' * 20}-> grant its user +info " in "\n".join(terminal[mend:])
    further = [line for line in terminal if not line.startswith(("ok", "mend", "?"))]
    assert len(further) >= 3
    assert all(line[:20].isspace() and not line[20].isspace() for line in further)


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
