"""Decisions that were made again, beside those that the run made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from msgspec.msgpack import encode
from rich.table import Table
from rich.text import Text

from tolaria.resume.redecide import Redecided, Turn
from tolaria.show.phrases import cause_words, clean, headline, pattern
from tolaria.show.plain import decision_dict, without_nan
from tolaria.show.scores import plain_table

_STYLES = {"same": "green", "different": "bold red"}


class _Line(NamedTuple):
    """A row of the table, which may stand for several boundaries in a row."""

    first: int
    last: int
    what: str
    now: str
    verdict: str
    kind: str
    """Boundaries in a row of one kind are one line."""


def redecided_table(rows: Iterable[Redecided | Turn]) -> Table:
    """What the run decided and what is decided now; holds in a row that agree are one line."""
    table = plain_table()
    table.add_column("epoch", no_wrap=True, justify="right")
    table.add_column("the run decided", overflow="fold", ratio=2)
    table.add_column("now", overflow="fold", ratio=3)
    for line in _joined(rows):
        epochs = str(line.first) if line.first == line.last else f"{line.first}-{line.last}"
        style = _STYLES.get(line.verdict, "yellow")
        said = Text.assemble((line.verdict, style), f": {line.now}" if line.now else "")
        table.add_row(epochs, Text(line.what), said)
    return table


def summary_lines(rows: Sequence[Redecided | Turn], *, is_own: bool, is_live: bool) -> list[str]:
    """What it came to: how many boundaries, how many differ, and what that does not tell."""
    boundaries = [row for row in rows if isinstance(row, Redecided)]
    verdicts = Counter(row.verdict for row in boundaries)
    number = "1 boundary" if len(boundaries) == 1 else f"{len(boundaries):,} boundaries"
    number += " so far" if is_live else ""
    num_same, num_different = verdicts["same"], verdicts["different"]
    head = f"{number}, all the same"
    if num_different:
        head = f"{number}, {num_different:,} different, {num_same:,} the same"
    elif num_same < len(boundaries):
        head = f"{number}, {num_same:,} the same, none different"
    excused = [f"{num:,} {kind}" for kind, num in verdicts.items() if kind not in _STYLES]
    lines = [", ".join([head, *excused])]
    if excused:
        lines.append(
            "late, undone or held: the run's policy was not asked there or not heard, so nothing "
            "is compared"
        )
    first = next((row.epoch for row in boundaries if row.verdict == "different"), None)
    if first is not None:
        lines.append(
            f"after epoch {first} the states are those of the run as it was: what would have "
            "followed is not known"
        )
        if is_own:
            lines.append(
                "the run's own policy decides otherwise than it did: it is not a pure function of "
                "the state, or not the version that made the run"
            )
    if any(isinstance(row, Turn) and not row.is_known for row in rows):
        lines.append(
            "the run went on from a checkpoint whose boundary is not in its journal: what its "
            "policy remembered then is not known"
        )
    return lines


def redecided_dict(row: Redecided | Turn) -> dict[str, Any]:
    """One row as plain values that JSON can hold."""
    if isinstance(row, Turn):
        fields: dict[str, Any] = {
            "epoch": row.epoch,
            "verdict": "went back" if row.why else "resumed",
            "to_epoch": row.to_epoch,
            "reason": row.why,
        }
        return fields
    fields = {
        "epoch": row.epoch,
        "verdict": row.verdict,
        "reason": row.was.cause if row.excuse else row.problem,
        "was": decision_dict(row.was),
        "now": None if row.now is None else decision_dict(row.now),
    }
    plain: dict[str, Any] = without_nan(fields)
    return plain


def _joined(rows: Iterable[Redecided | Turn]) -> list[_Line]:
    lines: list[_Line] = []
    for row in rows:
        line = _turn_line(row) if isinstance(row, Turn) else _boundary_line(row)
        before = lines[-1] if lines else None
        if before is not None and line.kind and before.kind == line.kind:
            line = line._replace(first=before.first)
            lines.pop()
        lines.append(line)
    return lines


def _turn_line(turn: Turn) -> _Line:
    if not turn.why:
        said = f"from the end of epoch {turn.to_epoch}"
        return _Line(turn.to_epoch, turn.to_epoch, "", said, "resumed", "")
    said = f"to the end of epoch {turn.to_epoch}: {clean(turn.why)}"
    return _Line(turn.epoch, turn.epoch, "", said, "went back", "")


def _boundary_line(row: Redecided) -> _Line:
    what, kind = headline(row.was), ""
    now = ""
    if row.excuse:
        now = clean(row.was.cause)
    elif row.problem:
        now = f"the policy raised {clean(row.problem)}"
    elif not row.is_same and row.now is not None:
        now = headline(row.now)
        now = f"{now}: {cause_words(row.now)}" if now != what else _other_words(row)
    elif not row.was.commands:
        kind = pattern(row.was)
    return _Line(row.epoch, row.epoch, what, now, row.verdict, kind)


def _other_words(row: Redecided) -> str:
    """What differs between two decisions that are called alike."""
    assert row.now is not None
    names = [
        name
        for name in row.was.__struct_fields__
        if encode(getattr(row.was, name)) != encode(getattr(row.now, name))
    ]
    if "cause" in names:
        return f"{cause_words(row.now)}; it was: {cause_words(row.was)}"
    return f"called alike, but with other {' and '.join(names)}"
