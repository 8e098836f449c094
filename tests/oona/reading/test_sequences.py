"""The set of sequences seen."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from oona.reading.sequences import SequenceSet

numbers = st.integers(1, 30)


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


@given(st.lists(numbers), numbers, numbers)
def test_what_is_missing_is_exact(given_numbers: list[int], first: int, last: int) -> None:
    """The ranges that are missing are those of the numbers that were never added, in order."""
    kept = SequenceSet()
    for number in given_numbers:
        kept.add(number)
    missing = kept.missing(first, last)
    told = [number for low, high in missing for number in range(low, high + 1)]
    assert told == [n for n in range(first, last + 1) if n not in given_numbers]
    assert all(high + 1 < low for (_, high), (low, _) in itertools.pairwise(missing))


@given(st.lists(st.tuples(numbers, numbers)), st.lists(numbers))
def test_a_range_is_all_its_numbers(spans: list[tuple[int, int]], single: list[int]) -> None:
    """Adding a range is adding each of its numbers, and ranges that touch become one."""
    kept, expected = SequenceSet(), SequenceSet()
    for number in single:
        kept.add(number)
        expected.add(number)
    for low, high in (sorted(span) for span in spans):
        kept.add_range(low, high)
        for number in range(low, high + 1):
            expected.add(number)
    assert kept.ranges() == expected.ranges()
