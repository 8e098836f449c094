"""Reading streams: what lies in those of all runs on a Redis server."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from oona.streams.client import (
    ResponseError,
    close_client,
    is_no_stream,
    open_client,
    server_errors,
    unless_no_stream,
)
from oona.streams.entry import BEGINNING, StoredEntry, stored
from oona.streams.names import KEY_PREFIX, run_of, stream_names

_PAGE_ENTRIES: Final = 32


class RedisReader:
    """Reads the streams of all runs on a server. Every method may raise ServerError."""

    def __init__(self, url: str):
        self._url = url
        self._client = open_client(url)

    def close(self) -> None:
        """Let go of the connection."""
        close_client(self._client)

    def streams(self) -> dict[str, list[bytes]]:
        """Names of the streams of every run, also those to come; the run that began first first."""
        return {
            run_id: list(dict.fromkeys([*found, *self.streams_of(run_id)]))
            for run_id, found in runs_of(self._client, self._url).items()
        }

    def streams_of(self, run_id: str) -> list[bytes]:
        """Names of the streams of one run, whether they are there yet or not."""
        with server_errors(self._url):
            return self._readable(stream_names(run_id).values())

    def entries(self, stream: bytes) -> Iterator[StoredEntry]:
        """Yield what a stream holds now, in order."""
        with server_errors(self._url), unless_no_stream():
            newest = self._client.xrevrange(stream, count=1)
            after = BEGINNING
            while newest:
                start = b"(" + after if after != BEGINNING else b"-"
                page = self._client.xrange(stream, start, newest[0][0], count=_PAGE_ENTRIES)
                yield from page_of(self._client, stream, after, page or ())
                if not page or len(page) < _PAGE_ENTRIES:
                    return
                after = page[-1][0]

    def wait(self, after: Mapping[bytes, bytes], timeout_s: float) -> list[StoredEntry]:
        """Wait for entries after an id in each of some streams, for as long as it is one.

        Args:
            after: for each stream the id of the last entry seen, or BEGINNING.
            timeout_s: under one second, the time after which a server counts as dead.
        """
        with server_errors(self._url):
            found = self._wait(after, max(1, int(timeout_s * 1000)))
            return [
                entry
                for stream, items in found or ()
                for entry in page_of(self._client, stream, after.get(stream, BEGINNING), items)
            ]

    def _wait(self, after: Mapping[bytes, bytes], block_ms: int) -> Any:
        """Leave out what is no stream any more, of which one fails the command for all."""
        streams = dict(after)
        while True:
            try:
                return self._client.xread(streams, count=_PAGE_ENTRIES, block=block_ms)
            except ResponseError as error:
                left = self._readable(streams)
                if not is_no_stream(error) or len(left) == len(streams):
                    raise
            if not left:
                time.sleep(block_ms / 1000)
                return None
            streams = {stream: after[stream] for stream in left}

    def _readable(self, keys: Iterable[bytes]) -> list[bytes]:
        """Those that are streams, or may become some; the others are somebody else's."""
        return [key for key in keys if self._client.type(key) in (b"stream", b"none")]


def runs_of(client: Any, url: str) -> dict[str, list[bytes]]:
    """Find the runs on a server that have entries, and their streams; the earliest run first."""
    found: dict[str, list[bytes]] = {}
    began: dict[str, tuple[int, ...]] = {}
    with server_errors(url):
        for key in client.scan_iter(f"{KEY_PREFIX}*", count=1000, _type="stream"):
            run_id = run_of(key)
            with unless_no_stream():
                if run_id is not None and (first := client.xrange(key, count=1)):
                    found.setdefault(run_id, []).append(key)
                    entry_time = _order(first[0][0])
                    began[run_id] = min(began.get(run_id, entry_time), entry_time)
    return {run_id: found[run_id] for run_id in sorted(found, key=began.__getitem__)}


def page_of(
    client: Any, stream: bytes, after: bytes, items: Sequence[tuple[bytes, Any]]
) -> list[StoredEntry]:
    """Make entries of what a server answered to a question for those after an id."""
    page = [stored(stream, entry_id, fields) for entry_id, fields in items]
    if page and _was_trimmed(client, stream, after):
        page[0] = page[0]._replace(is_after_trim=True)
    return page


def _was_trimmed(client: Any, stream: bytes, after: bytes) -> bool:
    """Whether entries after an id may have gone; asked after those that are left were read."""
    try:
        info = client.xinfo_stream(stream)
    except ResponseError:
        return False  # it may not be asked, or the stream is gone again
    if after == BEGINNING:
        return bool(info.get("entries-added", 0) > info["length"])
    first = info["first-entry"]
    return first is None or _order(first[0]) > _order(after)


def _order(entry_id: bytes) -> tuple[int, ...]:
    return tuple(int(part) for part in entry_id.split(b"-"))
