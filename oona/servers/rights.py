"""What a user may do on a server: too little for Esper, or more than it needs."""

from __future__ import annotations

from typing import Any, Final

from oona.servers.embedded import ACL_FILE, is_embedded
from oona.servers.finding import Finding
from oona.streams.client import NoPermissionError, ResponseError, ask

_TRIED: Final = {
    "CONFIG": ("CONFIG", "GET", "maxmemory"),
    "EVAL": ("EVAL", "return 1", "0"),
    "SCRIPT": ("SCRIPT", "EXISTS", "0"),
    "CLIENT": ("CLIENT", "LIST"),
    "ACL": ("ACL", "LIST"),
    "MODULE": ("MODULE", "LIST"),
}
"""Commands of which a harmless form shows whether the dangerous ones are allowed."""
_NOT_TRIED: Final = "FLUSHALL, SHUTDOWN and their like are not tried"


def refused_of(client: Any, scratch: str) -> list[str]:
    """Names of the commands that Esper needs and may not use, tried on a stream of their own."""
    group = (scratch, "doctor")
    commands: dict[str, tuple[Any, ...]] = {
        "INFO": ("INFO", "server"),
        "XADD": ("XADD", scratch, "MAXLEN", "~", 1000, "*", "x", "x"),
        "XLEN": ("XLEN", scratch),
        "XTRIM": ("XTRIM", scratch, "MINID", "~", 0),
        "PEXPIRE": ("PEXPIRE", scratch, 60_000),
        "TYPE": ("TYPE", scratch),
        "SCAN": ("SCAN", 0, "MATCH", scratch, "COUNT", 1),
        "XRANGE": ("XRANGE", scratch, "-", "+", "COUNT", 1),
        "XREVRANGE": ("XREVRANGE", scratch, "+", "-", "COUNT", 1),
        "XREAD": ("XREAD", "COUNT", 1, "STREAMS", scratch, 0),
        "XGROUP CREATE": ("XGROUP", "CREATE", *group, 0, "MKSTREAM"),
        "XREADGROUP": ("XREADGROUP", "GROUP", "doctor", "c", "STREAMS", scratch, ">"),
        "XACK": ("XACK", *group, "0-1"),
        "XAUTOCLAIM": ("XAUTOCLAIM", *group, "c", 3_600_000, "0-0"),
        "XPENDING": ("XPENDING", *group, "-", "+", 1),
        "XINFO STREAM": ("XINFO", "STREAM", scratch),
        "XINFO GROUPS": ("XINFO", "GROUPS", scratch),
    }
    return [name for name, command in commands.items() if is_refused(client, command)]


def is_refused(client: Any, command: tuple[Any, ...]) -> bool:
    """Say whether the user may not give a command, or the server does not know it."""
    try:
        ask(client, *command)
    except NoPermissionError:
        return True
    except ResponseError as error:
        return str(error).startswith("unknown command")
    return False


def rights(refused: list[str]) -> Finding:
    """Whether everything that Esper needs is allowed."""
    if not refused:
        return Finding("rights", "all commands that Esper needs are allowed")
    granted = " ".join("+" + name.lower().replace(" ", "|") for name in refused)
    told = f"refused: {', '.join(refused)}"
    return Finding("rights", told, f"grant its user {granted}, as in {ACL_FILE}")


def dangers(client: Any, url: str) -> Finding:
    """Whether commands are allowed that Esper does not need and others would suffer from."""
    if is_embedded(url):
        return Finding("dangers", "everything is allowed to who owns the socket: this user alone")
    allowed = [name for name, command in _TRIED.items() if not is_refused(client, command)]
    if not allowed:
        return Finding("dangers", f"{', '.join(_TRIED)} are refused; {_NOT_TRIED}")
    return Finding(
        "dangers",
        f"allowed, and not needed: {', '.join(allowed)}; {_NOT_TRIED}",
        f"give Esper a user of its own, made from {ACL_FILE}",
    )
