"""Bus URLs."""

from __future__ import annotations

import pytest

import leyline
from oona.servers import url as bus_url

GOOD = [
    "embedded",
    "memory",
    "off",
    "redis://host",
    "redis://[::1]:6379/2",
    "rediss://user:secret@host:6380/0?ssl_cert_reqs=required",
    "unix:///tmp/bus.sock",
    "unix://user:secret@/tmp/bus.sock?db=1",
]
BAD = [
    "",
    "embeded",
    "http://user:secret@host",
    "redis:host",
    "redis://",
    "redis://host:port",
    "redis://host:99999",
    "redis://host:0",
    "redis://host/name",
    "redis://user:se/cret@host",
    "redis://user:secret#@host",
    "redis:// host",
    "redis://[::1",
    "unix://tmp/bus.sock",
    "unix://",
]


@pytest.mark.parametrize("url", GOOD)
def test_what_a_server_can_have_is_allowed(url: str) -> None:
    """Every documented form passes, and no form shows its password."""
    bus_url.check_url(url)
    assert "secret" not in bus_url.redact(url)
    assert "secret" not in bus_url.without_password(url)


@pytest.mark.parametrize("url", BAD)
def test_a_malformed_url_is_refused_by_name(url: str) -> None:
    """The error says what is allowed and never shows a password."""
    with pytest.raises(leyline.BusError, match="allowed") as caught:
        bus_url.check_url(url)
    assert "secret" not in str(caught.value)


def test_without_a_password_a_url_is_itself() -> None:
    """Hiding a password changes nothing else."""
    for url in ("redis://host:6379/1?a=b", "unix:///tmp/a@b.sock", "redis://me@host"):
        assert bus_url.redact(url) == bus_url.without_password(url) == url
    assert bus_url.redact("redis://me:pw@host/1?password=x&a=b") == (
        "redis://me:***@host/1?password=***&a=b"
    )


@pytest.mark.parametrize(
    "option", ["ssl_cert_reqs=none", "ssl_cert_reqs=optional", "ssl_check_hostname=False"]
)
def test_tls_without_verification_is_refused_by_name(option: str) -> None:
    """An option that would trust any server is named, with what to do instead."""
    with pytest.raises(leyline.BusError, match=f"{option} would trust any server.*ssl_ca_certs"):
        bus_url.check_url(f"rediss://user:secret@host?{option}")


def test_an_option_that_is_none_is_refused() -> None:
    """Options of the client that would change how it answers cannot be smuggled in by a URL."""
    for option in ("decode_responses=1", "retry_on_timeout=1", "secret=1", "protocol=3"):
        with pytest.raises(leyline.BusError, match="unknown; known are db, ") as caught:
            bus_url.check_url(f"redis://host?{option}")
        assert "secret" not in str(caught.value).replace("secret=1", "")
