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
PHASES = ("connect", "login", "send", "reply")
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
        self.reply: bytes | None = None
        """What is answered to each command in place of the server; b"" for no answer."""
        self.is_endless = False
        """Whether the end of the reply is repeated until nobody takes it any more."""
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
        """Let everything pass again, on new connections."""
        self.toxic = self.reply = None
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
        # asyncio's server of 3.11 logs it as an error if a handler ends by being cancelled.
        with contextlib.suppress(OSError, asyncio.CancelledError):
            if spoils == "latency":
                await asyncio.sleep(LATENCY_S)
            if spoils == "reset":
                self._reset(client)
                return
            up, server = await asyncio.open_unix_connection(self._target)
            self._writers.add(server)
            gone = asyncio.Event()
            both = [
                asyncio.create_task(self._pump(down, server, client, "send", spoils, gone)),
                asyncio.create_task(self._pump(up, client, server, "reply", spoils, gone)),
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
        gone: asyncio.Event,
    ) -> None:
        at = "login" if phase == "send" else phase
        with contextlib.suppress(OSError):
            while data := await source.read(_CHUNK_SIZE_BYTES):
                if gone.is_set():
                    continue
                if b"XADD" in data:
                    at = phase
                if self.reply is not None and phase == "send":
                    await self._answer(other, data)
                    continue
                toxic = self.toxic
                here = toxic.name if toxic is not None and toxic.phase == at else None
                match always or here:
                    case "latency":  # of each piece, while those behind it are on their way too
                        loop = asyncio.get_running_loop()
                        loop.call_later(LATENCY_S, sink.write, data)
                        continue
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
                        gone.set()
                        (sink if phase == "send" else other).transport.abort()
                        continue
                sink.write(data)
                await sink.drain()
        if gone.is_set() and phase == "reply":
            await asyncio.Event().wait()

    async def _answer(self, client: asyncio.StreamWriter, asked: bytes) -> None:
        """Answer in the server's place, once for each command of a pipeline."""
        assert self.reply is not None
        client.write(self.reply * max(1, asked.count(b"XADD\r\n")))
        await client.drain()
        while self.is_endless and not client.transport.is_closing():
            client.write(self.reply[-1:] * 65536)
            await client.drain()

    def _reset(self, client: asyncio.StreamWriter) -> None:
        """End a connection with RST instead of FIN."""
        plug: socket.socket = client.get_extra_info("socket")
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.transport.abort()


def url_of(proxy: Proxy, scheme: str = "redis", login: str = "esper:secret") -> str:
    """Where a client reaches the server through the proxy."""
    return f"{scheme}://{login}@localhost:{proxy.port}"
