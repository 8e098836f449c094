"""Missing events in words."""

from __future__ import annotations

import pytest

from oona import Gap
from tolaria.show.gaps import gap_words


@pytest.mark.parametrize(
    ("spans", "words"),
    [
        ([(4, 4)], "1 event missing (number 4)"),
        ([(4, 4), (7, 8)], "3 events missing (number 4, 7-8)"),
        (
            [(n, n) for n in range(0, 70, 10)],
            "7 events missing (number 0, 10, 20, 30, 40 and 2 more gaps)",
        ),
        ([(9, 1 << 50)], "an unknown number of events is missing that an outbox had which is gone"),
        (
            [(4, 4), (9, 1 << 50)],
            "1 event missing (number 4), and an unknown number of events is missing that an outbox "
            "had which is gone",
        ),
    ],
)
def test_gaps_are_counted_and_named(spans: list[tuple[int, int]], words: str) -> None:
    """Few gaps are all named, many are counted, and a lost outbox is called that."""
    assert gap_words([Gap("run", *span) for span in spans]) == words
