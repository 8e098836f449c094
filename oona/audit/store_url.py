"""URLs of stores: which there may be, and how one is shown without its password."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote

from leyline import ConfigError

SQLITE: Final = "sqlite:"
POSTGRES: Final = ("postgresql://", "postgres://")


def check_store(url: str) -> None:
    """Refuse the URL of a store that there is none for.

    Raises:
        ConfigError: it is neither sqlite:PATH nor postgresql://...
    """
    if url.startswith(POSTGRES) or (url.startswith(SQLITE) and url != SQLITE):
        return
    raise ConfigError(
        f"store {redact(url)!r} is not understood; give sqlite:PATH, such as sqlite:audit.db, or "
        "postgresql://USER@HOST/DATABASE"
    )


def redact(url: str) -> str:
    """The URL with *** for its password, safe to print."""
    start, scheme, rest = url.partition("://")
    address, mark, options = rest.partition("?")
    if "@" in options:
        return f"{start}{scheme}..."  # a password may have been split at the wrong place
    login, at, host = address.rpartition("@")
    user, colon, _ = login.partition(":")
    shown = "&".join(map(_shown, options.split("&")))  # libpq takes passwords there too
    return f"{start}{scheme}{user}{':***' if colon else ''}{at}{host}{mark}{shown}"


def _shown(option: str) -> str:
    if "pass" not in unquote(option).lower():
        return option
    name, equals, _ = option.partition("=")
    return f"{name}=***" if equals else "***"
