"""Bus URLs: which are allowed, and how one is shown without its secrets."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import leyline

NAMED: Final = ("embedded", "memory", "off")
SCHEMES: Final = ("redis", "rediss", "unix")
_VERIFY: Final = {"ssl_cert_reqs": ("required",), "ssl_check_hostname": ("true", "yes", "1")}
"""Options whose other values would trust any server."""
_OPTIONS: Final = (
    *("db", "username", "password", "client_name", "socket_timeout", "socket_connect_timeout"),
    *("socket_keepalive", "ssl_ca_certs", "ssl_ca_path", "ssl_ca_data", "ssl_certfile"),
    *("ssl_keyfile", "ssl_password", "ssl_min_version", "ssl_ciphers", *_VERIFY),
)
_ALLOWED: Final = (
    '"embedded", "memory", "off", redis://[user:password@]host[:port][/database], '
    "rediss://... for TLS, or unix:///path/to/socket"
)


def check_url(url: str) -> None:
    """Refuse a URL that no server can have.

    Raises:
        BusError: with the URL, its password hidden, and what is allowed.
    """
    if url in NAMED:
        return
    flaw = _flaw(url)
    if flaw is not None:
        raise leyline.BusError(f"bus URL {redact(url)!r} refused: {flaw}; allowed: {_ALLOWED}")


def _flaw(url: str) -> str | None:
    """Say what is wrong, without quoting what could be part of a password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "its host or port cannot be read"
    if parts.scheme not in SCHEMES:
        return f"its scheme is {parts.scheme!r}" if parts.scheme else "it has no scheme"
    if any(character.isspace() or not character.isprintable() for character in url):
        return "it has blanks or control characters"
    if parts.fragment:
        return "it has a #; in a password write %23"
    if (flaw := _flaw_of_options(parts.query)) is not None:
        return flaw
    if parts.scheme == "unix":
        absolute = len(parts.path) > 1 and not parts.netloc.rpartition("@")[2]
        return None if absolute else "its path is not absolute"
    if not parts.hostname:
        return "it has no host"
    if port == 0:
        return "port 0 cannot be connected to"
    database = parts.path.strip("/")
    return None if not database or database.isdecimal() else "its database is not a number"


def _flaw_of_options(query: str) -> str | None:
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _OPTIONS:
            return f"an option after its ? is unknown; known are {', '.join(_OPTIONS)}"
        if value.lower() not in _VERIFY.get(name, (value.lower(),)):
            return (
                f"{name}={value} would trust any server; leave it out, and name the authority of "
                "its certificate by ssl_ca_certs=FILE or ESPER_REDIS_CA_FILE"
            )
    return None


def redact(url: str) -> str:
    """The URL with *** for every password, safe to print and to store."""
    return url if url in NAMED else _rewrite(url, "***")


def without_password(url: str) -> str:
    """The URL with its passwords left out, for a file that others may read."""
    return url if url in NAMED else _rewrite(url, None)


def _rewrite(url: str, mask: str | None) -> str:
    if "://" not in url:
        return "..." if ":" in url or "@" in url else url
    scheme = url.partition(":")[0]
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return f"{scheme}://..."
    beyond = parts.query if parts.scheme == "unix" else parts.path + parts.query
    if "@" in beyond or parts.fragment or parts.scheme not in SCHEMES:
        return f"{scheme}://..."  # a password may have been split at the wrong place
    login, at, address = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    login = f"{user}:{mask}" if password and mask is not None else user
    query = _rewrite_query(parts.query, mask)
    start = f"{parts.scheme}://{login}{at if login else ''}{address}{parts.path}"
    return f"{start}?{query}" if query else start


def _rewrite_query(query: str, mask: str | None) -> str:
    if "pass" not in query.lower():
        return query
    pairs = [
        (name, mask if "pass" in name.lower() else value)
        for name, value in parse_qsl(query, keep_blank_values=True)
    ]
    return urlencode([(name, value) for name, value in pairs if value is not None], safe="*/")
