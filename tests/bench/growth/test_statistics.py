"""Bootstrap intervals and rank correlation against cases that are known."""

from __future__ import annotations

import numpy as np
import pytest

from bench.growth.statistics import mean, spearman


def test_equal_values_have_no_interval() -> None:
    """With no spread the interval is the figure."""
    assert mean([2.5, 2.5, 2.5]) == (2.5, 2.5, 2.5)


def test_an_interval_of_three_reaches_from_the_least_to_the_greatest() -> None:
    """One resample in 27 has the least value alone, which is more than one in 40."""
    assert mean([1.0, 2.0, 6.0]) == (3.0, 1.0, 6.0)


def test_intervals_are_the_same_every_time() -> None:
    """The bootstrap is seeded: a verdict cannot change with the run of the report."""
    values = [number**0.5 for number in range(30)]
    assert mean(values) == mean(values)


def test_intervals_cover_the_true_mean() -> None:
    """Of 40 values with mean 1 the interval holds 1 in 90 % of cases or more."""
    draw = np.random.RandomState(0)
    found = [mean(list(1.0 + draw.randn(40))) for _ in range(50)]
    assert sum(low <= 1.0 <= high for _, low, high in found) >= 45


def test_rank_correlation_looks_at_order_alone() -> None:
    """Any rising map gives 1, any falling one -1."""
    values = [float(value) for value in range(1, 12)]
    assert spearman(values, [value**3 for value in values]).figure == pytest.approx(1.0)
    assert spearman(values, [1 / value for value in values]).figure == pytest.approx(-1.0)


def test_ties_share_their_mean_rank() -> None:
    """As in Kendall's textbook case: 1, 2.5, 2.5, 4 against 1, 2, 3, 4 gives sqrt(0.9)."""
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]).figure == pytest.approx(0.9**0.5)


def test_an_interval_of_a_correlation_holds_it() -> None:
    """And excludes 0 where thirty pairs follow one another closely."""
    draw = np.random.RandomState(1)
    first = draw.randn(30)
    found = spearman(list(first), list(first + 0.3 * draw.randn(30)))
    assert 0.0 < found.low < found.figure < found.high <= 1.0
