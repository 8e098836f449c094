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
_URL: Final = "the URL"


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
    user, password = origins(url, source)
    found: dict[str, str] = {}
    if user == USERNAME:
        found["username"] = source[USERNAME]
    if password != _URL and (secret := _password(source)):
        found["password"] = secret
    parts = urlsplit(url)
    options = parse_qs(parts.query)
    if parts.scheme == "rediss" and "ssl_ca_certs" not in options and source.get(CA_FILE):
        found["ssl_ca_certs"] = source[CA_FILE]
    authority = found.get("ssl_ca_certs") or next(iter(options.get("ssl_ca_certs", ())), None)
    if authority is not None and not Path(authority).is_file():
        raise leyline.BusError(f"file of certificate authorities {authority!r} is not there")
    return found


def origins(
    url: str, environment: Mapping[str, str] | None = None
) -> tuple[str | None, str | None]:
    """Where user and password of a login come from: "the URL", a variable's name, or None.

    Args:
        url: a redis://, rediss:// or unix:// URL.
        environment: where the variables are; those of the process if None.
    """
    source = os.environ if environment is None else environment
    parts = urlsplit(url)
    options = parse_qs(parts.query)
    user = _URL if parts.username or "username" in options else None
    if parts.password or "password" in options:
        return user, _URL
    if embedded.is_embedded(url):
        return user, None
    if user is None and source.get(USERNAME):
        user = USERNAME
    return user, next((name for name in (PASSWORD_FILE, PASSWORD) if source.get(name)), None)


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
