"""Logins and authorities from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

import leyline
from oona.servers.credentials import CA_FILE, PASSWORD, PASSWORD_FILE, USERNAME, missing_in

HOST = "redis://host:6379"


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text("secret\n")
    path.chmod(0o600)
    return path


def test_what_the_url_lacks_comes_from_the_environment(password_file: Path) -> None:
    """User and password are taken from variables, or the password from a file."""
    assert missing_in(HOST, {}) == {}
    both = {"username": "me", "password": "secret"}
    assert missing_in(HOST, {USERNAME: "me", PASSWORD: "secret"}) == both
    assert missing_in(HOST, {USERNAME: "me", PASSWORD_FILE: str(password_file)}) == both
    assert missing_in("unix:///run/bus.sock", {USERNAME: "me"}) == {"username": "me"}


def test_what_the_url_says_wins() -> None:
    """A password in the URL is the one used; a user there takes the password of the environment."""
    known = {USERNAME: "me", PASSWORD: "secret"}
    assert missing_in("redis://you:pw@host", known) == {}
    assert missing_in("redis://:pw@host", known) == {}
    assert missing_in("redis://host?password=pw", known) == {}
    assert missing_in("redis://you@host", known) == {"password": "secret"}


def test_an_embedded_server_is_told_no_password() -> None:
    """A login for another server is not sent to our own, which has none."""
    known = {USERNAME: "me", PASSWORD: "secret"}
    assert missing_in("unix:///tmp/esper-oona-x1/bus.sock", known) == {}


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o666])
def test_a_password_that_everybody_may_read_is_refused(password_file: Path, mode: int) -> None:
    """The error names variable, file and what to do, not the password."""
    password_file.chmod(mode)
    with pytest.raises(leyline.BusError, match=f"{PASSWORD_FILE}.*password.*chmod 600") as caught:
        missing_in(HOST, {PASSWORD_FILE: str(password_file)})
    assert "secret" not in str(caught.value)


def test_a_file_that_cannot_be_used_is_refused_by_name(tmp_path: Path, password_file: Path) -> None:
    """Missing, no file, empty or no text: each is said; so are two sources at once."""
    for path, content, why in (
        (tmp_path / "nothing", None, "No such file"),
        (tmp_path, None, "Is a directory"),
        (password_file, b"\n", "empty"),
        (password_file, b"\xff\xfe", "UTF-8"),
    ):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(leyline.BusError, match=why):
            missing_in(HOST, {PASSWORD_FILE: str(path)})
    with pytest.raises(leyline.BusError, match="both set"):
        missing_in(HOST, {PASSWORD_FILE: str(password_file), PASSWORD: "secret"})


def test_the_authority_is_for_tls_alone(password_file: Path) -> None:
    """The file of certificate authorities goes with rediss:// unless the URL names one; one that
    is not there is refused."""
    known = {CA_FILE: str(password_file)}
    assert missing_in("rediss://host", known) == {"ssl_ca_certs": str(password_file)}
    assert missing_in(f"rediss://host?ssl_ca_certs={password_file}", known) == {}
    assert missing_in(HOST, known) == {}
    for url, variables in (
        ("rediss://host", {CA_FILE: "/nowhere/ca.pem"}),
        ("rediss://host?ssl_ca_certs=/nowhere/ca.pem", known),
    ):
        with pytest.raises(leyline.BusError, match=r"/nowhere/ca\.pem"):
            missing_in(url, variables)
