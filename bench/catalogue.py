"""The benches by name, in the order of the table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Protocol

from bench import (
    audit,
    bookkeeping,
    boundary,
    breaker,
    callback,
    checkpoint,
    chunks,
    codec,
    decide,
    dormant,
    gpu,
    guard,
    offer,
    publish,
    race,
    rates,
    recovery,
    rollback,
    search,
    seeds,
    stages,
    startup,
    steps,
    whole,
    work,
)
from bench.harness import Effort, Row


class Bench(Protocol):
    """A module of this package that measures."""

    TITLE: str

    @staticmethod
    def rows(effort: Effort) -> Iterable[Row]:
        """Measure, row by row."""
        ...


BENCHES: Mapping[str, Bench] = MappingProxyType(
    {
        "boundary": boundary,
        "decide": decide,
        "steps": steps,
        "stages": stages,
        "callback": callback,
        "whole": whole,
        "seeds": seeds,
        "bookkeeping": bookkeeping,
        "chunks": chunks,
        "dormant": dormant,
        "guard": guard,
        "race": race,
        "search": search,
        "work": work,
        "rates": rates,
        "breaker": breaker,
        "checkpoint": checkpoint,
        "rollback": rollback,
        "recovery": recovery,
        "codec": codec,
        "offer": offer,
        "publish": publish,
        "audit": audit,
        "startup": startup,
        "gpu": gpu,
    }
)
ONLY_FULL = ("race", "search", "whole")
"""Minutes long: a quick run leaves them out."""
