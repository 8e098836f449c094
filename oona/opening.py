"""Opening a bus: its outbox, its server and who publishes, made and ended together."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Final, NamedTuple

import leyline
from oona import run_file
from oona.outbox import file as outbox_file
from oona.outbox.outbox import Outbox
from oona.publishing.process import PublisherProcess
from oona.publishing.publisher import Publisher
from oona.servers import url as bus_url
from oona.servers.embedded import EmbeddedServer, remove_leftover
from oona.streams.memory import MemoryTransport
from oona.streams.transport import NoServer, ServerError, Transport

PUBLISHERS: Final = ("thread", "process")

_LOG_NAME: Final = "valkey.log"
_READERS_TIMEOUT_S: Final = 0.5
"""How long an embedded server outlives the run for readers that have not let go of it."""


class Parts(NamedTuple):
    """What an open bus is made of."""

    outbox: Outbox
    publisher: Publisher | PublisherProcess
    server: EmbeddedServer | None
    url: str
    """Of the server that was started or chosen."""
    warnings: tuple[str, ...]


class _Way(NamedTuple):
    """The way to a server."""

    url: str
    server: EmbeddedServer | None
    transport: Transport
    is_shareable: bool
    """Whether another process can go it too."""


def open_parts(
    run_dir: Path,
    run_id: str,
    url: str,
    *,
    ring_size_bytes: int,
    publisher: str,
    bytes_per_s: int | None,
) -> Parts:
    """Make the parts of a bus; see `Bus.open`."""
    path = run_dir / outbox_file.FILE_NAME
    is_lost = not outbox_file.is_made(path) and run_file.read(run_dir) is not None
    outbox = Outbox(path, ring_size_bytes)
    if is_lost:
        outbox.skip_lost()
    way = _find(url, run_id, run_dir)
    warnings = list(outbox.warnings)
    try:
        address = run_file.RunFile(bus_url.without_password(way.url), run_id)
        run_file.write(run_dir, address)
    except OSError as error:
        warnings.append(f"readers cannot find the bus by its run directory: {error}")
    if publisher == "process" and way.is_shareable and outbox.path is not None and sys.executable:
        try:
            process = PublisherProcess(outbox, way.url, run_id, bytes_per_s=bytes_per_s)
            return Parts(outbox, process, way.server, way.url, tuple(warnings))
        except leyline.BusError as error:
            warnings.append(str(error))
    elif publisher == "process":
        warnings.append("published by a thread: a process needs an outbox on disk and a server")
    thread = Publisher(outbox, way.transport, bytes_per_s=bytes_per_s)
    return Parts(outbox, thread, way.server, way.url, tuple(warnings))


def end_server(server: EmbeddedServer) -> None:
    """Stop our server, after its readers have had what they follow."""
    from oona.streams.client import wait_for_readers  # late: importing redis takes 0.1 s

    with contextlib.suppress(ServerError):  # it is gone already
        wait_for_readers(server.url, _READERS_TIMEOUT_S)
    server.stop()


def _find(url: str, run_id: str, run_dir: Path) -> _Way:
    """Start or choose the server."""
    if url == "memory":
        return _Way(url, None, MemoryTransport(), is_shareable=False)
    # Late: importing redis takes 0.1 s, which `esper --help` must not pay.
    from oona.streams.writer import RedisTransport

    if url != "embedded":
        return _Way(url, None, RedisTransport(url, run_id), is_shareable=True)
    earlier = run_file.read(run_dir)
    if earlier is not None:
        remove_leftover(earlier.url)
    try:
        server = EmbeddedServer(run_dir / _LOG_NAME)
    except ServerError as error:
        return _Way(url, None, NoServer(str(error)), is_shareable=False)
    return _Way(server.url, server, RedisTransport(server.url, run_id), is_shareable=True)
