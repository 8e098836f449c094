"""What may be asked of an audit trail."""

from __future__ import annotations

import difflib
import re
from datetime import datetime, timedelta
from typing import Final, get_args

import msgspec

import leyline
from leyline import ConfigError
from oona.audit.row import kind_of, seed_key

KINDS: Final = tuple(kind_of(message) for message in get_args(leyline.Event))
"""Kinds of events, as the contract tags them."""

_SPAN: Final = re.compile(r"(\d{1,9})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_ORDER: Final = "wall_ns, sequence"
_BACKWARDS: Final = "wall_ns DESC, sequence DESC"
_NS: Final = 1_000_000_000
_LARGEST: Final = 2**63 - 1


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Which events are wanted: those that meet every condition that is given.

    Raises:
        ConfigError: a kind that is none, or a limit or an epoch out of range.
    """

    kinds: tuple[str, ...] = ()
    seed: str | None = None
    since_ns: int | None = None
    """The earliest wall time."""
    epoch: int | None = None
    limit: int | None = None
    """Only the newest so many of them."""

    def __post_init__(self) -> None:
        """Check what types alone cannot say."""
        for kind in self.kinds:
            if kind not in KINDS:
                close = difflib.get_close_matches(kind.lower(), KINDS, n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                raise ConfigError(
                    f"there is no kind {kind!r}; {hint}allowed: {', '.join(sorted(KINDS))}"
                )
        for name, value, least in (("limit", self.limit, 1), ("epoch", self.epoch, 0)):
            if value is not None and not least <= value <= _LARGEST:
                raise ConfigError(f"{name} is {value}; it must be {least} or more, below 2**63")

    def sql(
        self, columns: str, table: str, *, placeholder: str, position_of: str
    ) -> tuple[str, list[str | int]]:
        """The statement that finds them in order of time, and its parameters.

        Args:
            columns: what to select.
            table: where the events are.
            placeholder: "?" or "%s".
            position_of: the function that finds a text in another: "instr" or "strpos".
        """
        conditions, parameters = ["TRUE"], list[str | int]()
        if self.kinds:
            conditions.append(f"kind IN ({', '.join([placeholder] * len(self.kinds))})")
            parameters += self.kinds
        if self.seed is not None:
            conditions.append(f"seeds IS NOT NULL AND {position_of}(seeds, {placeholder}) > 0")
            parameters.append(seed_key(self.seed))
        for column, value in (("wall_ns >=", self.since_ns), ("epoch =", self.epoch)):
            if value is not None:
                conditions.append(f"{column} {placeholder}")
                parameters.append(value)
        chosen = f"FROM {table} WHERE {' AND '.join(conditions)} ORDER BY"
        if self.limit is None:
            return f"SELECT {columns} {chosen} {_ORDER}", parameters
        parameters.append(self.limit)
        newest = f"SELECT {columns}, wall_ns, sequence {chosen} {_BACKWARDS} LIMIT {placeholder}"
        sql = f"SELECT {columns} FROM ({newest}) AS newest ORDER BY {_ORDER}"  # noqa: S608 -- names only
        return sql, parameters


def parse_since(text: str, now_ns: int) -> int:
    """The wall time, in ns, that "10m" (before now) or "2026-11-21T10:00" names.

    Args:
        text: a number with s, m, h or d; or an ISO 8601 time, local unless it names its zone.
        now_ns: the wall time now.

    Raises:
        ConfigError: it is neither.
    """
    span = _SPAN.fullmatch(text.strip())
    try:
        if span is not None:
            seconds = timedelta(**{_UNITS[span[2]]: int(span[1])}).total_seconds()
            return max(now_ns - int(seconds) * _NS, 0)
        return int(datetime.fromisoformat(text.strip()).timestamp()) * _NS
    except (ValueError, OverflowError, OSError) as error:
        raise ConfigError(
            f"time {text!r} is not understood; give a span before now, such as 90s, 10m, 2h or "
            "7d, or a time such as 2026-11-21T10:00"
        ) from error
