"""Bytes to messages and back: a 16-byte header, then msgpack. Only ContractError escapes.

Header, little endian: magic "LEYL", version (uint16), reserved (uint16, 0), length of the body in
bytes (uint32), CRC-32 of the body (uint32). The size is checked before anything is decoded.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from leyline.checksum import crc32
from leyline.errors import ContractError, VersionError
from leyline.limits import MESSAGE_SIZE_BYTES
from leyline.messages.base import VERSION
from leyline.messages.decisions import Command, Score
from leyline.messages.envelope import Envelope, Event
from leyline.messages.sites import Candidate, SiteInfo

_HEADER: Final = struct.Struct("<4sHHII")
HEADER_SIZE_BYTES: Final = _HEADER.size
_MAGIC: Final = b"LEYL"

AnyMessage = Event | Envelope | Command | Score | SiteInfo | Candidate
"""Every message that may stand alone."""

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final[msgspec.msgpack.Decoder[AnyMessage]] = msgspec.msgpack.Decoder(AnyMessage)


def encode(message: AnyMessage) -> bytes:
    """Encode one message.

    Raises:
        ContractError: the message is larger than MESSAGE_SIZE_BYTES or holds a value that has no
            place in the contract.
    """
    body = bytearray()
    return encode_body(message, body) + body


def encode_body(message: AnyMessage, body: bytearray) -> bytes:
    """Encode one message into a header and a reused buffer, which then holds its body alone.

    The two are apart because msgspec is thirty times slower on large packets when the buffer
    begins with something else.

    Returns:
        The header, HEADER_SIZE_BYTES long; the message is the header followed by the body.

    Raises:
        ContractError: as for encode, or the buffer must grow while a view of it is in use.
    """
    try:
        _ENCODER.encode_into(message, body)
    except (TypeError, ValueError, OverflowError, RecursionError, BufferError) as error:
        raise ContractError(f"{type(message).__name__} cannot be encoded: {error}") from error
    body_size_bytes = len(body)
    if HEADER_SIZE_BYTES + body_size_bytes > MESSAGE_SIZE_BYTES:
        raise ContractError(
            f"{type(message).__name__} takes {HEADER_SIZE_BYTES + body_size_bytes} bytes, more "
            f"than the {MESSAGE_SIZE_BYTES} a message may have; split it"
        )
    return _HEADER.pack(_MAGIC, VERSION, 0, body_size_bytes, crc32(body))


def decode(data: bytes | bytearray | memoryview) -> AnyMessage:
    """Decode one message; columns of a StatePacket stay views into `data`.

    Raises:
        ContractError: too large, cut short, damaged, of another version, or not a message.
    """
    view = memoryview(data)
    if not view.c_contiguous:
        raise ContractError("message refused: its buffer has gaps; pass a copy without them")
    view = view.cast("B")
    if len(view) > MESSAGE_SIZE_BYTES:
        raise ContractError(
            f"message of {len(view)} bytes refused: at most {MESSAGE_SIZE_BYTES} are read"
        )
    if len(view) < HEADER_SIZE_BYTES:
        raise ContractError(
            f"message cut short: {len(view)} bytes, the header alone has {HEADER_SIZE_BYTES}"
        )
    magic, version, reserved, size_bytes, checksum = _HEADER.unpack_from(view)
    body = view[HEADER_SIZE_BYTES:]
    if magic != _MAGIC or reserved:
        raise ContractError("not a Leyline message: its first eight bytes are not the header's")
    if version != VERSION:
        raise VersionError(
            f"message of contract version {version} refused: this is version {VERSION}"
        )
    if size_bytes != len(body):
        raise ContractError(
            f"message body of {len(body)} bytes refused: its header says {size_bytes}"
        )
    if crc32(body) != checksum:
        raise ContractError("message damaged: its CRC-32 does not fit its content")
    try:
        return _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ContractError(f"message malformed: {error}") from error
