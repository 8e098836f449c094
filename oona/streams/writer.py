"""Writing streams: entries to a Redis server, over one connection."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import Any, Final

from leyline import Priority
from oona.servers import url as bus_url
from oona.streams.client import (
    WRITER_LIMITS,
    NoPermissionError,
    OutOfMemoryError,
    ResponseError,
    malformed,
    open_pool,
    server_errors,
)
from oona.streams.entry import KINDS_FIELD, NUM_FIELD, PAYLOAD_FIELD, Entry
from oona.streams.names import stream_names
from oona.streams.transport import ServerError

MAX_AGE_S: Final = 7 * 24 * 3600.0
"""How long an entry is kept, approximately; a stream goes so long after its last entry."""
NUM_ENTRIES: Final = 10_000
"""Entries kept per stream, approximately; the oldest go first."""
_MIN_TRIMMED_ENTRIES: Final = 16
_AGE_SHARE: Final = 10
"""Old entries are looked for each time a stream has become older by this part of the limit."""
_ENTRY_ID: Final = re.compile(rb"^([0-9]{1,20})-[0-9]{1,20}$")
_RUN_ID: Final = re.compile(rb"^run_id:([0-9a-f]{1,60})\r?$", re.MULTILINE)


class RedisTransport:
    """Appends entries to the streams of one run, over one connection that never comes back.

    A client that reconnects by itself would hide that the server is another one now.

    Args:
        url: a redis://, rediss:// or unix:// URL.
        run_id: names the streams.
        max_age_s: how long entries are kept by the server's clock, approximately.
    """

    def __init__(self, url: str, run_id: str, *, max_age_s: float = MAX_AGE_S):
        self._url = url
        self._streams = stream_names(run_id)
        self._pool = open_pool(url, WRITER_LIMITS)
        self._max_age_ms = max(1, round(max_age_s * 1000))
        self._aged_ms: dict[Priority, int] = {}
        self._connection: Any = None

    def connect(self) -> str:
        """Connect anew; for who may not ask, the server's URL is its identity."""
        self.close()
        self._aged_ms.clear()
        with server_errors(self._url):
            try:
                self._connection = self._pool.get_connection()
            except TypeError as error:
                raise malformed(self._url) from error
            self._reply("PING")
            try:
                found = _RUN_ID.search(self._reply("INFO", "server"))
            except NoPermissionError:
                found = None
        return found[1].decode() if found else bus_url.redact(self._url)[:60]

    def append(self, entries: Sequence[Entry]) -> list[str | None]:
        """Append entries in one round trip; a server without memory gives up old metrics first."""
        if self._connection is None:
            raise ServerError(f"{bus_url.redact(self._url)}: not connected")
        commands = [
            (
                *("XADD", self._streams[entry.lane], "MAXLEN", "~", NUM_ENTRIES, "*"),
                *(NUM_FIELD, entry.num_events, KINDS_FIELD, entry.kinds),
                *(PAYLOAD_FIELD, entry.payload),
            )
            for entry in entries
        ]
        refusals: list[str | None] = []
        newest_ms: dict[Priority, int] = {}
        out_of_memory = False
        with server_errors(self._url):
            self._connection.send_packed_command(self._connection.pack_commands(commands))
            for entry in entries:
                try:
                    newest_ms[entry.lane] = _time_ms(self._connection.read_response())
                    refusals.append(None)
                except ResponseError as error:
                    refusals.append(_reason(error))
                    out_of_memory |= isinstance(error, OutOfMemoryError)
            if out_of_memory:
                self._make_room()
            for lane, now_ms in newest_ms.items():
                self._let_age(lane, now_ms)
        return refusals

    def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()
            self._pool.release(connection)

    def _reply(self, *command: str | bytes | int) -> Any:
        self._connection.send_command(*command)
        return self._connection.read_response()

    def _make_room(self) -> None:
        """Drop the older half of the least important stream that has a history."""
        for lane in Priority:
            num_entries = self._reply("XLEN", self._streams[lane])
            if num_entries >= _MIN_TRIMMED_ENTRIES:
                self._reply("XTRIM", self._streams[lane], "MAXLEN", num_entries // 2)
                return

    def _let_age(self, lane: Priority, now_ms: int) -> None:
        """Now and then drop what is too old, by the server's clock."""
        if now_ms - self._aged_ms.get(lane, 0) < self._max_age_ms // _AGE_SHARE:
            return
        self._aged_ms[lane] = now_ms
        # A server that forbids it keeps more; `esper doctor` says so.
        with contextlib.suppress(ResponseError):
            self._reply("XTRIM", self._streams[lane], "MINID", "~", now_ms - self._max_age_ms)
            self._reply("PEXPIRE", self._streams[lane], self._max_age_ms)


def _reason(error: ResponseError) -> str:
    """What the server said; the client cuts off the codes that it knows, as in "MOVED"."""
    kind = type(error).__name__.removesuffix("Error")
    return f"{error}" if kind == "Response" else f"{kind}: {error}"


def _time_ms(answer: Any) -> int:
    """The server's time when it took an entry, out of the id that it answers."""
    found = _ENTRY_ID.match(answer) if isinstance(answer, bytes) else None
    if found is None:
        raise ValueError(f"its answer to XADD is no entry's id: {answer!r:.80}")
    return int(found[1])
