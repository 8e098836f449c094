"""What a publisher says of itself, also across processes: a CRC'd record in the outbox's page."""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from leyline.checksum import crc32
from oona.metrics.operations import OperationSummary

CONNECTING: Final = "connecting"
DELIVERING: Final = "delivering"

_HEADER: Final = struct.Struct("<II")
_ENCODER: Final = msgspec.json.Encoder()
_STATE_LENGTH: Final = 200


class PublisherStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a publisher is."""

    state: str = CONNECTING
    """One of connecting and delivering, or what is wrong with the server."""
    breaker: str = "closed"
    """"open" from the third failure in a row until something is delivered, else "closed"."""
    num_faults: int = 0
    """Exceptions that nobody had foreseen and that the publisher survived."""
    num_failures: int = 0
    """Attempts that failed."""
    is_done: bool = False
    """Nothing waits, and a server that can be reached has been sent the history too."""
    operations: dict[str, OperationSummary] = {}
    """"connect" and "send"."""


_DECODER: Final = msgspec.json.Decoder(PublisherStatus)


def write(memory: memoryview, status: PublisherStatus) -> None:
    """Put a status where another process can read it; a long state is cut."""
    short = msgspec.structs.replace(status, state=status.state[:_STATE_LENGTH])
    content = _ENCODER.encode(short)
    if _HEADER.size + len(content) > len(memory):
        content = _ENCODER.encode(msgspec.structs.replace(short, operations={}))
    memory[_HEADER.size : _HEADER.size + len(content)] = content
    _HEADER.pack_into(memory, 0, len(content), crc32(content))


def read(memory: memoryview) -> PublisherStatus | None:
    """Read it; None if there is none, or it is just being written."""
    length, checksum = _HEADER.unpack_from(memory)
    content = bytes(memory[_HEADER.size : _HEADER.size + length])
    if not length or crc32(content) != checksum:
        return None
    try:
        return _DECODER.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
