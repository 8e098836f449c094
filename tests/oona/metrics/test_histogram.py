"""The histogram of durations: exact counts, percentiles within a sixteenth."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oona.metrics.histogram import Histogram

LONGEST_NS = 2**43 - 1
durations = st.lists(st.integers(0, LONGEST_NS), min_size=1, max_size=200)


def filled(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


@given(durations, st.sampled_from([0, 50, 95, 99, 100]))
def test_percentiles_are_within_a_sixteenth(values: list[int], q: int) -> None:
    """Whatever was recorded, a percentile is within 1/16 of the value of that rank, and none is
    above the longest."""
    rank = max(math.ceil(len(values) * q / 100), 1)
    true = sorted(values)[rank - 1]
    found = filled(values).percentile_ns(q)
    assert abs(found - true) <= true / 16
    assert found <= max(values)


def test_what_no_clock_should_say_is_counted_too() -> None:
    """A negative duration counts as 0 and one of years as 2.4 hours; an empty histogram has no
    percentile."""
    histogram = filled([-5, 10**18])
    assert (histogram.count, histogram.longest_ns) == (2, LONGEST_NS)
    assert histogram.percentile_ns(50) == 0
    assert histogram.percentile_ns(100) == pytest.approx(LONGEST_NS, rel=1 / 16)
    assert math.isnan(Histogram().percentile_ns(50))
