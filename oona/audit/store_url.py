"""URLs of stores: which there may be, and how one is shown without its password."""

from __future__ import annotations

from typing import Final

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
    login, at, host = rest.rpartition("@")
    if "password" in host.lower():  # libpq takes one among the options too
        host = host.partition("?")[0] + "?..."
    user, colon, _ = login.partition(":")
    return f"{start}{scheme}{user}{':***' if colon else ''}{at}{host}"
