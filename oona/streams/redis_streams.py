"""Redis Streams, the only module that knows redis: one stream per run and lane."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, Final, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, OutOfMemoryError, ResponseError
from redis.retry import Retry

import leyline
from leyline import Priority
from oona.servers import url as bus_url
from oona.streams.entry import KEY_PREFIX, Entry
from oona.streams.transport import ServerError

_CONNECT_TIMEOUT_S: Final = 0.5
_REPLY_TIMEOUT_S: Final = 1.0
_NUM_ENTRIES: Final = 10_000
"""Entries kept per stream, approximately; the oldest go first."""
_MIN_TRIMMED_ENTRIES: Final = 16
_PAGE_ENTRIES: Final = 32
_POLL_INTERVAL_S: Final = 0.005
_NUM_FIELD: Final = b"num_events"
_PAYLOAD_FIELD: Final = b"envelopes"
_RUN_ID: Final = re.compile(rb"^run_id:([0-9a-f]{1,60})\r?$", re.MULTILINE)


class StoredEntry(NamedTuple):
    """An entry as it lies in a stream: anybody may have written it."""

    stream: bytes
    id: bytes
    num_events: bytes | None
    payload: bytes | None


def stream_names(run_id: str) -> dict[Priority, bytes]:
    """The name of a run's stream for each lane, as in "esper:my-run:report"."""
    return {lane: f"{KEY_PREFIX}{run_id}:{lane.name.lower()}".encode() for lane in Priority}


@contextmanager
def _server_errors(url: str) -> Iterator[None]:
    try:
        yield
    except (redis.RedisError, OSError) as error:
        reason = str(error) or type(error).__name__
        raise ServerError(f"{bus_url.redact(url)}: {reason}") from error


def _pool(url: str) -> redis.ConnectionPool:
    """Make a pool whose connections fail at once: who calls decides when to try again."""
    try:
        return redis.ConnectionPool.from_url(
            url,
            protocol=2,
            socket_connect_timeout=_CONNECT_TIMEOUT_S,
            socket_timeout=_REPLY_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        raise _malformed(url) from error


def _malformed(url: str) -> leyline.BusError:
    return leyline.BusError(
        f"bus URL {bus_url.redact(url)!r} refused: an option after its ? is unknown or malformed"
    )


def wait_for_readers(url: str, timeout_s: float) -> bool:
    """Wait until nobody else is connected to a server; False if somebody still is."""
    deadline = time.monotonic() + timeout_s
    with _server_errors(url), closing(redis.Redis(connection_pool=_pool(url))) as client:
        while client.info("clients")["connected_clients"] > 1:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_INTERVAL_S)
    return True


class RedisTransport:
    """Appends entries to the streams of one run, over one connection that never comes back.

    A client that reconnects by itself would hide that the server is another one now.
    """

    def __init__(self, url: str, run_id: str):
        self._url = url
        self._streams = stream_names(run_id)
        self._pool = _pool(url)
        self._connection: Any = None

    def connect(self) -> str:
        """Connect anew; for who may not ask, the server's URL is its identity."""
        self.close()
        with _server_errors(self._url):
            try:
                self._connection = self._pool.get_connection()
            except TypeError as error:
                raise _malformed(self._url) from error
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
                *("XADD", self._streams[entry.lane], "MAXLEN", "~", _NUM_ENTRIES, "*"),
                *(_NUM_FIELD, entry.num_events, _PAYLOAD_FIELD, entry.payload),
            )
            for entry in entries
        ]
        refusals: list[str | None] = []
        out_of_memory = False
        with _server_errors(self._url):
            self._connection.send_packed_command(self._connection.pack_commands(commands))
            for _ in commands:
                try:
                    self._connection.read_response()
                    refusals.append(None)
                except ResponseError as error:
                    refusals.append(str(error))
                    out_of_memory |= isinstance(error, OutOfMemoryError)
            if out_of_memory:
                self._make_room()
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


class RedisReader:
    """Reads the streams of all runs on a server. Every method may raise ServerError."""

    def __init__(self, url: str):
        self._url = url
        # Any: the client's own types mix text with bytes and replies with awaitables.
        self._client: Any = redis.Redis(connection_pool=_pool(url))
        with _server_errors(url):
            self._client.ping()

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()
        self._client.connection_pool.disconnect()

    def streams(self) -> dict[str, list[bytes]]:
        """Names of the streams of every run, also those to come; the run that began first first."""
        lanes = {lane.name.lower() for lane in Priority}
        found: dict[str, list[bytes]] = {}
        began: dict[str, tuple[int, ...]] = {}
        with _server_errors(self._url):
            for key in self._client.scan_iter(f"{KEY_PREFIX}*", count=1000, _type="stream"):
                name = key[len(KEY_PREFIX) :].decode(errors="replace")
                run_id, _, lane = name.rpartition(":")
                first = self._client.xrange(key, count=1)
                if run_id and lane in lanes and first:
                    found.setdefault(run_id, []).append(key)
                    entry_time = tuple(int(part) for part in first[0][0].split(b"-"))
                    began[run_id] = min(began.get(run_id, entry_time), entry_time)
        return {
            run_id: list(dict.fromkeys([*found[run_id], *self.streams_of(run_id)]))
            for run_id in sorted(found, key=began.__getitem__)
        }

    def streams_of(self, run_id: str) -> list[bytes]:
        """Names of the streams of one run, whether they are there yet or not."""
        with _server_errors(self._url):
            return [
                stream
                for stream in stream_names(run_id).values()
                if self._client.type(stream) in (b"stream", b"none")  # else somebody else's key
            ]

    def entries(self, stream: bytes) -> Iterator[StoredEntry]:
        """Yield what a stream holds now, in order."""
        with _server_errors(self._url):
            newest = self._client.xrevrange(stream, count=1)
            start = b"-"
            while newest:
                page = self._client.xrange(stream, start, newest[0][0], count=_PAGE_ENTRIES)
                yield from (_stored(stream, *item) for item in page or ())
                if not page or len(page) < _PAGE_ENTRIES:
                    return
                start = b"(" + page[-1][0]

    def wait(self, after: Mapping[bytes, bytes], timeout_s: float) -> list[StoredEntry]:
        """Wait for entries after an id in each of some streams.

        Args:
            after: for each stream the id of the last entry seen, or b"0".
            timeout_s: under one second, the time after which a server counts as dead.
        """
        with _server_errors(self._url):
            block_ms = max(1, int(timeout_s * 1000))
            found = self._client.xread(dict(after), count=_PAGE_ENTRIES, block=block_ms)
        return [_stored(stream, *item) for stream, items in found or () for item in items]


def _stored(stream: bytes, entry_id: bytes, fields: Mapping[bytes, bytes] | None) -> StoredEntry:
    fields = fields or {}
    return StoredEntry(stream, entry_id, fields.get(_NUM_FIELD), fields.get(_PAYLOAD_FIELD))
