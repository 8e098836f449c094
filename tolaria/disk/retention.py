"""Which checkpoints stay: a pure function of what there is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tolaria.disk.manifest import Priority

_RANKS: Final[dict[Priority, int]] = {"low": 0, "normal": 1, "high": 2}


class Rules(NamedTuple):
    """How many and how much may stay."""

    active: int = 2
    """Newest checkpoints that stay, whatever their priority; at least 1."""
    archived: int = 2
    """Older ones of each priority above low that stay in the archive."""
    size_limit_bytes: int | None = None
    """Of all checkpoints together; the newest stays even if it alone is larger."""


class Kept(NamedTuple):
    """A checkpoint that is there."""

    path: Path
    order: tuple[int, int]
    """Its step, and which one of that step it is."""
    priority: Priority
    size_bytes: int
    is_sound: bool
    """False if it is known to be damaged."""
    is_archived: bool


class Plan(NamedTuple):
    """What is to be done, in this order."""

    remove: tuple[Path, ...]
    archive: tuple[Path, ...]


def plan(there: Sequence[Kept], newest: Path, rules: Rules) -> Plan:
    """Decide what becomes of the checkpoints beside the newest one.

    Those of its own and later steps belong to a future that was undone; they and the damaged ones
    go. Of the older ones the newest stay active, the best of the rest are archived.
    """
    (now,) = (kept for kept in there if kept.path == newest)
    past = [k for k in there if k.is_sound and k.order[0] < now.order[0]]
    past.sort(key=lambda kept: kept.order, reverse=True)
    active = [k for k in past if not k.is_archived][: rules.active - 1]
    archived: list[Kept] = []
    for priority in ("high", "normal"):
        wanted = [k for k in past if k.priority == priority and k not in active]
        archived += wanted[: rules.archived]
    staying = _within(now, [*active, *archived], rules.size_limit_bytes)
    gone = sorted((k for k in there if k not in (now, *staying)), key=_undone_future_first)
    to_archive = [k for k in archived if k in staying and not k.is_archived]
    return Plan(tuple(k.path for k in gone), tuple(k.path for k in to_archive))


def _undone_future_first(kept: Kept) -> tuple[int, int]:
    return (-kept.order[0], -kept.order[1])


def _within(newest: Kept, others: list[Kept], limit_bytes: int | None) -> list[Kept]:
    """Those that fit beside the newest: what is worth least and oldest goes first."""
    if limit_bytes is None:
        return others
    room = limit_bytes - newest.size_bytes
    staying = []
    for kept in sorted(others, key=lambda k: (_RANKS[k.priority], k.order), reverse=True):
        if kept.size_bytes > room:
            break
        room -= kept.size_bytes
        staying.append(kept)
    return staying
