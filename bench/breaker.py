"""A call guarded by a breaker that is closed, beside pybreaker's own guard."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pybreaker

from bench.harness import Effort, Row, Target
from tolaria.boundary.breakers import Breaker

TITLE = "A guarded call"
_MOST_US = 0.6
_MOST = 1 / 15


def rows(effort: Effort) -> Iterator[Row]:
    """One row: asked, and told that all went well."""
    ours = Breaker(
        "policy",
        clock=time.monotonic,
        hold=10.0,
        longest_hold=10.0,
        unit="s",
        on_change=lambda change: None,
    )
    theirs = pybreaker.CircuitBreaker()

    def guarded() -> None:
        assert ours.admits()
        ours.settle(None)

    def call() -> None:
        theirs.call(_nothing)

    yield Row.timed(
        "breaker/call",
        "a guarded call that succeeds",
        "us",
        effort.compare(guarded, call, repeats=500),
        peer="pybreaker.call",
        target=Target(p50=_MOST_US),
        most=_MOST,
        note="four of them in a boundary",
    )


def _nothing() -> None:
    """Do nothing."""
