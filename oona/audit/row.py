"""One row of the audit trail: an event's envelope, and what of it can be asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import leyline

_SMALLEST: Final = -(2**63)
_LARGEST: Final = 2**63 - 1
_SEPARATOR: Final = "\n"


class Row(NamedTuple):
    """The columns that a store keeps, in their order; texts have no NUL, numbers fit 64 bits."""

    run_id: str
    sequence: int
    lane: int
    kind: str
    """The event's tag in the contract, such as "seed_report"."""
    seeds: str | None
    """Names of the seeds that the event is about, each between two line ends; None if none."""
    epoch: int | None
    """None for events that belong to no epoch, such as single steps."""
    step: int | None
    wall_ns: int
    monotonic_ns: int
    envelope: bytes
    """The event as Leyline encodes it, its CRC included."""


def row_of(envelope: leyline.Envelope) -> Row | None:
    """The row of an event; None for a hostile one that no store can number or hold."""
    if not 1 <= envelope.sequence <= _LARGEST:
        return None
    try:
        encoded = leyline.encode(envelope)
    except leyline.ContractError:
        return None  # small as it came, too large in the form that Leyline writes
    event = envelope.event
    return Row(
        run_id=_stored(envelope.run_id),
        sequence=envelope.sequence,
        lane=_clamped(envelope.priority),
        kind=kind_of(type(event)),
        seeds=_seeds(event),
        epoch=_number(getattr(event, "epoch", None)),
        step=_number(getattr(event, "step", None)),
        wall_ns=_clamped(envelope.wall_ns),
        monotonic_ns=_clamped(envelope.monotonic_ns),
        envelope=encoded,
    )


def kind_of(message: type[leyline.Message]) -> str:
    """The tag of a type of event, as in the column "kind"."""
    return str(message.__struct_config__.tag)


def seed_key(seed: str) -> str:
    """What the column "seeds" holds if an event is about this seed."""
    name = _stored(seed).replace(_SEPARATOR, "\ufffd")
    return f"{_SEPARATOR}{name}{_SEPARATOR}"


def seed_names(seeds: str | None) -> list[str]:
    """The names in a column "seeds"."""
    return [] if seeds is None else seeds.strip(_SEPARATOR).split(_SEPARATOR)


def _seeds(event: leyline.Event) -> str | None:
    names: Iterable[str] = ()
    match event:
        case leyline.SeedReport() | leyline.FieldReport():
            names = (event.seed,)
        case leyline.Decision():
            parts = (*event.commands, *event.scores)
            names = dict.fromkeys(part.seed for part in parts)
        case leyline.LearningRates():
            names = event.seeds
    keys = [seed_key(name) for name in names]
    return _SEPARATOR + "".join(key[1:] for key in keys) if keys else None


def _stored(text: str) -> str:
    """The text as every store can hold it: PostgreSQL has no place for a NUL."""
    return text.replace("\0", "\ufffd")


def _number(value: int | None) -> int | None:
    return value if value is not None and _SMALLEST <= value <= _LARGEST else None


def _clamped(value: int) -> int:
    return min(max(value, _SMALLEST), _LARGEST)
