"""A proxy in front of a server that spoils what passes, in the words of toxiproxy."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

TOXICS = ("latency", "bandwidth", "blackhole", "reset", "slice", "half-open")
PHASES = ("connect", "send", "reply")
LATENCY_S = 0.15
BANDWIDTH_BYTES_PER_S = 400_000
SLICE_SIZE_BYTES = 7
_CHUNK_SIZE_BYTES = 4096


class Toxic(NamedTuple):
    """What is spoilt, and where: new connections, what clients send, or what the server replies."""

    name: str
    phase: str


class Proxy:
    """Listens on loopback, with TLS if given a context, and forwards to a unix socket."""

    def __init__(self, target: Path, tls: ssl.SSLContext | None = None):
        self.toxic: Toxic | None = None
        self.num_connections = 0
        self._target = target
        self._tls = tls
        self._ready = threading.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10.0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._main.cancel)
        self._thread.join(10.0)
        assert not self._thread.is_alive()

    def cut(self) -> None:
        """End every connection."""
        self._loop.call_soon_threadsafe(self._abort_all)

    def heal(self) -> None:
        """Let everything pass again; what was swallowed stays away."""
        self.toxic = None
        self.cut()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        self._main = task
        server = await asyncio.start_server(self._handle, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = server.sockets[0].getsockname()[1]
        self._ready.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        self._abort_all()
        server.close()

    def _abort_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _handle(self, down: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        self._writers.add(client)
        toxic = self.toxic
        spoils = toxic.name if toxic is not None and toxic.phase == "connect" else None
        with contextlib.suppress(OSError):
            if spoils == "latency":
                await asyncio.sleep(LATENCY_S)
            if spoils == "reset":
                self._reset(client)
                return
            up, server = await asyncio.open_unix_connection(self._target)
            self._writers.add(server)
            both = [
                asyncio.create_task(self._pump(down, server, client, "send", spoils)),
                asyncio.create_task(self._pump(up, client, server, "reply", spoils)),
            ]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in both:
                    task.cancel()
                for writer in (client, server):
                    writer.transport.abort()
                    self._writers.discard(writer)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        other: asyncio.StreamWriter,
        phase: str,
        always: str | None,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(_CHUNK_SIZE_BYTES):
                toxic = self.toxic
                here = toxic.name if toxic is not None and toxic.phase == phase else None
                match always or here:
                    case "latency":
                        await asyncio.sleep(LATENCY_S)
                    case "bandwidth":
                        await asyncio.sleep(len(data) / BANDWIDTH_BYTES_PER_S)
                    case "blackhole":
                        continue
                    case "reset":
                        self._reset(sink if phase == "reply" else other)
                        return
                    case "slice":
                        for start in range(0, len(data), SLICE_SIZE_BYTES):
                            sink.write(data[start : start + SLICE_SIZE_BYTES])
                            await sink.drain()
                            await asyncio.sleep(0)
                        continue
                    case "half-open":  # the server's side is gone, the client's knows nothing of it
                        (sink if phase == "send" else other).transport.abort()
                        await asyncio.Event().wait()
                sink.write(data)
                await sink.drain()

    def _reset(self, client: asyncio.StreamWriter) -> None:
        """End a connection with RST instead of FIN."""
        plug: socket.socket = client.get_extra_info("socket")
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.transport.abort()


def url_of(proxy: Proxy, scheme: str = "redis", login: str = "esper:secret") -> str:
    """Where a client reaches the server through the proxy."""
    return f"{scheme}://{login}@localhost:{proxy.port}"
