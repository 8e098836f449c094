"""results.json: every row with its verdict, and what it was measured on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.harness.machine import commit, machine, versions
from bench.harness.row import Row, Verdict
from bench.harness.table import number, ratio_words
from leyline import ConfigError

_FORMAT = 1


def results(rows: Sequence[Row], *, is_quick: bool) -> dict[str, Any]:
    """What is written: JSON values only."""
    return {
        "format": _FORMAT,
        "effort": "quick" if is_quick else "full",
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        "goals": [
            {"id": row.id, "verdict": str(row.verdict), "figure": figure(row)}
            for row in rows
            if row.verdict is not Verdict.NO_GOAL
        ],
        "rows": [_values(row) for row in rows],
    }


def figure(row: Row) -> str:
    """The row in a few words: what decides it."""
    if row.ours is None:
        return row.missing
    peer = row.peer
    shown = row.ours.p95 if row.target.p95 is not None else row.ours.p50
    words = f"{number(shown if shown is not None else row.ours.p50)} {row.unit}"
    return words if peer is None else f"{words}, {ratio_words(peer.ratio)} x {peer.name}"


def read(path: Path) -> dict[str, Any]:
    """Results as written by `results`.

    Raises:
        ConfigError: it is not there, or not one.
    """
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as results of a bench: {error}") from error
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise ConfigError(
            f"{path} holds no results of this format ({_FORMAT}); python -m bench writes them"
        )
    return found


def count(rows: Iterable[Row]) -> str:
    """How many rows met their goal, missed it, could not be measured."""
    verdicts = Counter(row.verdict for row in rows)
    without = verdicts.pop(Verdict.NO_GOAL, 0)
    decided = ", ".join(f"{num} {kind}" for kind, num in sorted(verdicts.items()))
    return f"{verdicts.total()} goals: {decided}; {without} rows without a goal"


def _values(row: Row) -> dict[str, Any]:
    return {
        "id": row.id,
        "claim": row.claim,
        "unit": row.unit,
        "ours": None if row.ours is None else vars(row.ours),
        "target": {name: most for name, most in vars(row.target).items() if most is not None},
        "peer": None if row.peer is None else vars(row.peer),
        "note": row.note,
        "verdict": str(row.verdict),
        "missing": row.missing,
    }
