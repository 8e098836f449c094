"""One entry of a stream: many encoded envelopes packed together, how many, and of what kinds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

import leyline
from leyline import Priority
from leyline.codec import HEADER_SIZE_BYTES

ENTRY_RECORDS: Final = 512
"""Most envelopes packed into one entry."""
ENTRY_SIZE_BYTES: Final = 256 * 1024
"""Size at which an entry is closed; only an entry of one envelope may be larger."""
READ_SIZE_BYTES: Final = leyline.limits.MESSAGE_SIZE_BYTES + 2 * ENTRY_SIZE_BYTES
"""A larger entry is not ours and is refused unread."""
NUM_FIELD: Final = b"num_events"
KINDS_FIELD: Final = b"kinds"
PAYLOAD_FIELD: Final = b"envelopes"
BEGINNING: Final = b"0"
"""In place of the id of the last entry seen: none was."""
UNKNOWN: Final = "unknown"

_KINDS_SIZE_BYTES: Final = 4096
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(list[bytes])
_NAMES: Final = {
    str(kind.__struct_config__.tag): kind.__name__ for kind in leyline.PRIORITIES
}  # as the ledger calls them


class _EventHead(msgspec.Struct, array_like=True):
    tag: str


class _EnvelopeHead(msgspec.Struct, array_like=True):
    """What is read of an envelope to learn its event's kind, in 0.3 us."""

    tag: msgspec.Raw
    run_id: msgspec.Raw
    sequence: int
    priority: int
    monotonic_ns: int
    wall_ns: int
    event: _EventHead


_HEAD_DECODER: Final = msgspec.msgpack.Decoder(_EnvelopeHead)


class Entry(NamedTuple):
    """What one XADD carries."""

    lane: Priority
    num_events: int
    kinds: str
    """Event types and how many of each, as in "StepMetrics=5,StatePacket=1"."""
    payload: bytes


class StoredEntry(NamedTuple):
    """An entry as it lies in a stream: anybody may have written it."""

    stream: bytes
    id: bytes
    num_events: bytes | None
    kinds: bytes | None
    payload: bytes | None
    is_after_trim: bool = False
    """Entries before it may have gone before they were read."""


def stored(stream: bytes, entry_id: bytes, fields: Mapping[bytes, bytes] | None) -> StoredEntry:
    """Make an entry of what a server answers; a field that is not there is None."""
    fields = fields or {}
    num_events, kinds = fields.get(NUM_FIELD), fields.get(KINDS_FIELD)
    return StoredEntry(stream, entry_id, num_events, kinds, fields.get(PAYLOAD_FIELD))


def pack(lane: Priority, bodies: list[bytes]) -> Entry:
    """Pack encoded envelopes of one lane."""
    counts = Counter(map(_kind, bodies))
    kinds = ",".join(f"{name}={num}" for name, num in counts.items())
    return Entry(lane, len(bodies), kinds, _ENCODER.encode(bodies))


def unpack(num_events: bytes | None, payload: bytes | None) -> list[bytes]:
    """Split the payload of an entry that anybody may have written.

    Raises:
        ContractError: it is not what `pack` makes.
    """
    if num_events is None or payload is None or len(payload) > READ_SIZE_BYTES:
        raise leyline.ContractError(
            f"stream entry refused: not a number and a payload of up to {READ_SIZE_BYTES} bytes"
        )
    try:
        bodies = _DECODER.decode(payload)
    except msgspec.MsgspecError as error:
        raise leyline.ContractError(f"stream entry malformed: {error}") from error
    if str(len(bodies)).encode() != num_events:
        raise leyline.ContractError(
            f"stream entry refused: it has {len(bodies)} events and claims {num_events[:20]!r}"
        )
    return bodies


def kinds_of(kinds: bytes | None) -> frozenset[str]:
    """The event types that an entry claims to hold; empty if it does not say so plainly."""
    if kinds is None or len(kinds) > _KINDS_SIZE_BYTES:
        return frozenset()
    parts = kinds.decode(errors="replace").split(",")
    return frozenset(name for name, _, num in (p.partition("=") for p in parts) if num.isdecimal())


def _kind(body: bytes) -> str:
    try:
        tag = _HEAD_DECODER.decode(body[HEADER_SIZE_BYTES:]).event.tag
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return UNKNOWN
    return _NAMES.get(tag, UNKNOWN)
