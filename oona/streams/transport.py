"""What the publisher needs of a server, whichever it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import leyline
from oona.streams.entry import Entry


class ServerError(leyline.BusError):
    """A server that does not answer, or that refuses what it was sent."""


class Transport(Protocol):
    """A way to a server that keeps streams."""

    def connect(self) -> str:
        """Connect anew and return the identity of this instance of the server.

        Raises:
            ServerError: it does not answer.
        """

    def append(self, entries: Sequence[Entry]) -> list[str | None]:
        """Append entries to their streams, in order.

        Returns:
            For each entry None once the server has acknowledged it, else why it was refused.

        Raises:
            ServerError: the connection broke; any of the entries may or may not have arrived.
        """

    def close(self) -> None:
        """Let go of the connection; nothing is raised."""


class NoServer:
    """Stands in for a server that could not be started: it is never reached, and says why."""

    def __init__(self, reason: str):
        self._reason = reason

    def connect(self) -> str:
        """Raise ServerError with the reason."""
        raise ServerError(self._reason)

    def append(self, entries: Sequence[Entry]) -> list[str | None]:
        """Raise ServerError with the reason."""
        raise ServerError(self._reason)

    def close(self) -> None:
        """Nothing was opened."""
