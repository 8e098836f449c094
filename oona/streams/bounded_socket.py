"""A socket whose answers have an end: neither without bound in size nor in time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple


class AnswerLimits(NamedTuple):
    """What is the most that a server may answer to all that was asked at once."""

    size_bytes: int
    time_s: float
    """However steadily it drips."""


class BoundedSocket:
    """Counts what comes after each sending, and raises OSError when it is too much or too late.

    Everything else is the socket's own.

    Args:
        socket: plain or TLS.
        limits: of what comes before something is sent again.
        clock: monotonic seconds.
    """

    def __init__(
        self, socket: Any, limits: AnswerLimits, clock: Callable[[], float] = time.monotonic
    ):
        self._socket = socket
        self._limits = limits
        self._clock = clock
        self._begin()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def sendall(self, data: bytes) -> None:
        """Send, and expect an answer from now on."""
        self._socket.sendall(data)
        self._begin()

    def recv(self, size_bytes: int) -> bytes:
        """Receive a part of the answer."""
        data: bytes = self._socket.recv(size_bytes)
        self._count(len(data))
        return data

    def recv_into(self, buffer: Any, *size: int) -> int:
        """Receive a part of the answer, as the client's parser in C does."""
        size_bytes: int = self._socket.recv_into(buffer, *size)
        self._count(size_bytes)
        return size_bytes

    def _begin(self) -> None:
        self._left_bytes = self._limits.size_bytes
        self._deadline = self._clock() + self._limits.time_s

    def _count(self, size_bytes: int) -> None:
        self._left_bytes -= size_bytes
        if self._left_bytes < 0:
            raise OSError(f"answer refused: it has more than {self._limits.size_bytes} bytes")
        if self._clock() > self._deadline:
            raise OSError(f"answer refused: it is not over after {self._limits.time_s:g} s")
