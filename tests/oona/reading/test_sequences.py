"""The set of sequences seen."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from oona.reading.sequences import SequenceSet


@given(st.lists(st.integers(1, 30)))
def test_it_answers_as_a_set_does(numbers: list[int]) -> None:
    """Adding says whether the number was new; completeness means every number from 1 on."""
    sequences, plain = SequenceSet(), set[int]()
    for number in numbers:
        assert sequences.add(number) == (number not in plain)
        plain.add(number)
    for last in range(1, 32):
        assert sequences.is_complete(last) == all(n in plain for n in range(1, last + 1))


def test_a_long_run_takes_no_room() -> None:
    """Consecutive numbers are kept as one range."""
    sequences = SequenceSet()
    for number in range(1, 10_000):
        sequences.add(number)
    assert sequences._firsts == [1]
    assert sequences._lasts == [9_999]
