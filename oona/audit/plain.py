"""Events as plain values that JSON can hold, and as JSON lines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

import leyline
from oona.audit.row import kind_of

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ENCODER: Final = msgspec.json.Encoder()


def event_dict(envelope: leyline.Envelope) -> dict[str, Any]:
    """One event, everything in it; a "kind" is a tag of the contract, and NaN becomes None."""
    return {
        "time": time_text(envelope.wall_ns),
        "run_id": envelope.run_id,
        "sequence": envelope.sequence,
        "lane": envelope.priority,
        "wall_ns": envelope.wall_ns,
        "monotonic_ns": envelope.monotonic_ns,
        **_plain(envelope.event),
    }


def json_line(envelope: leyline.Envelope) -> bytes:
    """The same in JSON, on one line that ends."""
    return _ENCODER.encode(event_dict(envelope)) + b"\n"


def event_json(event: leyline.Event) -> str:
    """What the event itself says, in JSON."""
    return _ENCODER.encode(_plain(event)).decode()


def time_text(wall_ns: int) -> str | None:
    """The time in UTC as ISO 8601 to the microsecond; None if no calendar has it."""
    try:
        return (_EPOCH + timedelta(microseconds=wall_ns // 1000)).isoformat()
    except OverflowError:
        return None


def _plain(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case leyline.StatePacket():
            columns = {name: value.column(name).tolist() for name in leyline.COLUMN_FORMATS}
            return _fields(value) | {name: _plain(items) for name, items in columns.items()}
        case leyline.Message():
            return {name: _plain(item) for name, item in _fields(value).items()}
        case Mapping():
            return {name: _plain(item) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
    return value


def _fields(message: leyline.Message) -> dict[str, Any]:
    return {"kind": kind_of(type(message))} | msgspec.structs.asdict(message)
