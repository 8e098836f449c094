"""One entry of a stream: many encoded envelopes packed together, and how many there are."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

import leyline
from leyline import Priority

KEY_PREFIX: Final = "esper:"
ENTRY_RECORDS: Final = 512
"""Most envelopes packed into one entry."""
ENTRY_SIZE_BYTES: Final = 256 * 1024
"""Size at which an entry is closed; only an entry of one envelope may be larger."""
READ_SIZE_BYTES: Final = leyline.limits.MESSAGE_SIZE_BYTES + 2 * ENTRY_SIZE_BYTES
"""A larger entry is not ours and is refused unread."""

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(list[bytes])


class Entry(NamedTuple):
    """What one XADD carries."""

    lane: Priority
    num_events: int
    payload: bytes


def pack(lane: Priority, bodies: list[bytes]) -> Entry:
    """Pack encoded envelopes of one lane."""
    return Entry(lane, len(bodies), _ENCODER.encode(bodies))


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
