"""What a session injected: summed over its tests, and over the processes that ran them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from tests.reliability.classes import CLASSES, GOAL_FAULTS, GOAL_MESSAGES, MESSAGES, Oracle

PROPERTY = "fault"
"""The name under which a test's report carries [number of the class, faults]."""

_WRONG = {
    Oracle.TRANSPARENT: "unexplained differences",
    Oracle.SEED_CULLED: "unexplained differences",
    Oracle.BATCH_SKIPPED: "unexplained differences",
    Oracle.REFUSED: "undetected corruptions",
    Oracle.EXACT: "ledger errors",
}
_HANGS = "hangs"


class Totals:
    """Faults by class, and what went wrong."""

    def __init__(self) -> None:
        self.num_injected: Counter[int] = Counter()
        self.wrong: Counter[str] = Counter()

    def add(self, properties: Iterable[tuple[str, Any]], *, passed: bool, hung: bool) -> None:
        """Count a test by the properties of its report; faults count only where it passed."""
        found = [value for name, value in properties if name == PROPERTY]
        for number, num in found:
            if passed:
                self.num_injected[number] += num
        if found and not passed:
            self.wrong[_HANGS if hung else _WRONG[CLASSES[found[0][0]].oracle]] += 1

    @property
    def reached(self) -> list[int]:
        """The classes that have their least."""
        return [n for n, each in CLASSES.items() if self.num_injected[n] >= each.least]

    @property
    def num_faults(self) -> int:
        """Faults of the classes that have their least; the others are not counted."""
        return sum(self.num_injected[number] for number in self.reached if number != MESSAGES)

    @property
    def num_messages(self) -> int:
        """Messages that were mutated."""
        return self.num_injected[MESSAGES]

    def rows(self) -> Iterator[str]:
        """A line for each class."""
        for number, each in CLASSES.items():
            num = self.num_injected[number]
            state = "" if num >= each.least else f"  short of {each.least:,}"
            yield f"{number:3} {each.name:42} {num:>9,}{state}"

    def line(self) -> str:
        """All of it in one line."""
        wrong = ", ".join(f"{self.wrong[what]} {what}" for what in (*_kinds(), _HANGS))
        return (
            f"{len(self.reached)} of {len(CLASSES)} classes, {self.num_faults:,} faults "
            f"(goal {GOAL_FAULTS:,}), {self.num_messages:,} mutated messages "
            f"(goal {GOAL_MESSAGES:,}), {wrong}"
        )


def _kinds() -> list[str]:
    return list(dict.fromkeys(_WRONG.values()))
