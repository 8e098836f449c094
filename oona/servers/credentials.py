"""What a URL does not say of a login and of trust: taken from the environment, never stored."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import leyline
from oona.servers import embedded
from oona.servers import url as bus_url

USERNAME: Final = "ESPER_REDIS_USERNAME"
PASSWORD: Final = "ESPER_REDIS_PASSWORD"  # noqa: S105 -- a variable's name
PASSWORD_FILE: Final = "ESPER_REDIS_PASSWORD_FILE"  # noqa: S105 -- a variable's name
CA_FILE: Final = "ESPER_REDIS_CA_FILE"
VARIABLES: Final = (USERNAME, PASSWORD, PASSWORD_FILE, CA_FILE)
"""Environment variables that are read."""

_PASSWORD_SIZE_BYTES: Final = 4096


def check_access(url: str) -> None:
    """Refuse the bus of a run that can never be reached as it is given; nothing is connected.

    Args:
        url: "embedded", "memory", "off", or a redis://, rediss:// or unix:// URL.

    Raises:
        BusError: the URL is malformed, or what the environment adds to it cannot be used.
    """
    bus_url.check_url(url)
    if url not in bus_url.NAMED:
        missing_in(url)


def missing_in(url: str, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The client's options for what the environment knows and the URL does not say.

    A login in the URL wins; a URL that names a user alone takes its password from here. An
    embedded server's socket needs none: its directory is private.

    Args:
        url: a redis://, rediss:// or unix:// URL.
        environment: where the variables are; those of the process if None.

    Raises:
        BusError: a file that a variable names cannot be read or used, or everybody may read a
            password; the password itself is never in it.
    """
    if embedded.is_embedded(url):
        return {}
    source = os.environ if environment is None else environment
    parts = urlsplit(url)
    options = parse_qs(parts.query)
    found: dict[str, str] = {}
    if not (parts.password or "password" in options):
        if not (parts.username or "username" in options) and source.get(USERNAME):
            found["username"] = source[USERNAME]
        if password := _password(source):
            found["password"] = password
    if parts.scheme == "rediss" and "ssl_ca_certs" not in options and source.get(CA_FILE):
        found["ssl_ca_certs"] = source[CA_FILE]
    authority = found.get("ssl_ca_certs") or next(iter(options.get("ssl_ca_certs", ())), None)
    if authority is not None and not Path(authority).is_file():
        raise leyline.BusError(f"file of certificate authorities {authority!r} is not there")
    return found


def _password(source: Mapping[str, str]) -> str | None:
    path = source.get(PASSWORD_FILE)
    if not path:
        return source.get(PASSWORD)
    if source.get(PASSWORD):
        raise leyline.BusError(f"{PASSWORD} and {PASSWORD_FILE} are both set; unset one of them")
    try:
        with Path(path).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode) or mode & stat.S_IROTH:
                flaw = "everybody may read it" if stat.S_ISREG(mode) else "it is no ordinary file"
                raise leyline.BusError(
                    f"{PASSWORD_FILE} {path!r} refused: {flaw}; use a file of your own, chmod 600"
                )
            content = file.read(_PASSWORD_SIZE_BYTES)
    except OSError as error:
        raise leyline.BusError(f"{PASSWORD_FILE} {path!r}: {error.strerror}") from error
    try:
        password = content.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise leyline.BusError(f"{PASSWORD_FILE} {path!r} refused: it is not UTF-8") from error
    if not password:
        raise leyline.BusError(f"{PASSWORD_FILE} {path!r} refused: it is empty")
    return password
