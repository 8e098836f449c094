"""Where won ends and tied begins, and tied and lost."""

from __future__ import annotations

import pytest

from bench.growth import verdicts
from bench.growth.statistics import Estimate
from bench.growth.verdicts import Verdict


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [
        (Estimate(0.5, 0.01, 0.9), "won"),
        (Estimate(0.5, 0.0, 0.9), "tied"),
        (Estimate(0.49, 0.1, 0.5), "tied"),
        (Estimate(0.3, 0.1, 0.49), "lost"),
        (Estimate(-1.0, -2.0, -0.5), "lost"),
    ],
)
def test_better_by_half_a_point(gain: Estimate, verdict: Verdict) -> None:
    """The mean must reach it and the interval exclude 0; below it for sure is lost."""
    assert verdicts.better_by(gain, 0.5) == verdict


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [
        (Estimate(0.2, 0.1, 0.3), "won"),
        (Estimate(0.2, -0.1, 0.3), "tied"),
        (Estimate(-0.1, -0.3, 0.0), "tied"),
        (Estimate(-0.2, -0.3, -0.01), "lost"),
    ],
)
def test_simply_better(gain: Estimate, verdict: Verdict) -> None:
    """Without a least gain the interval decides alone: on which side of 0 it lies."""
    assert verdicts.better_by(gain) == verdict


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [
        (Estimate(-0.5, -1.0, 0.0), "won"),
        (Estimate(-0.5, -1.01, 0.0), "tied"),
        (Estimate(-1.5, -2.0, -1.0), "tied"),
        (Estimate(-1.5, -2.0, -1.01), "lost"),
    ],
)
def test_within_a_point(gain: Estimate, verdict: Verdict) -> None:
    """Won if the whole interval is within the margin, lost if none of it is."""
    assert verdicts.not_below(gain, 1.0) == verdict


@pytest.mark.parametrize(
    ("share", "verdict"),
    [
        (Estimate(0.3, 0.2, 1 / 3), "won"),
        (Estimate(0.3, 0.2, 0.34), "tied"),
        (Estimate(0.4, 0.34, 0.5), "lost"),
    ],
)
def test_at_most_a_third(share: Estimate, verdict: Verdict) -> None:
    """Won if the whole interval keeps to the limit, lost if none of it does."""
    assert verdicts.at_most(share, 1 / 3) == verdict


@pytest.mark.parametrize(
    ("trial", "null", "verdict"),
    [
        (Estimate(0.8, 0.7, 0.9), Estimate(0.79, 0.6, 0.9), "won"),
        (Estimate(0.8, 0.7, 0.9), Estimate(0.8, 0.6, 0.9), "tied"),
        (Estimate(0.7, 0.6, 0.8), Estimate(0.1, 0.0, 0.2), "tied"),
        (Estimate(0.7, 0.6, 0.79), Estimate(0.1, 0.0, 0.2), "lost"),
        (Estimate(0.85, 0.7, 0.9), Estimate(0.95, 0.9, 1.0), "lost"),
    ],
)
def test_a_ranking_must_beat_the_null(trial: Estimate, null: Estimate, verdict: Verdict) -> None:
    """However high it is: a null that is as good needs no trial."""
    assert verdicts.ranks_well(trial, null, 0.8) == verdict


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [([0.0, 3.0], "won"), ([-0.5, 3.0], "tied"), ([-0.51, 3.0], "lost")],
)
def test_the_worst_run_decides(gains: list[float], verdict: Verdict) -> None:
    """No mean hides a run that ended below its control by more than the noise."""
    assert verdicts.never_worse(gains, 0.5) == verdict


def test_a_goal_is_as_bad_as_its_worst_part() -> None:
    """Lost before missing, missing before tied, tied before won."""
    assert verdicts.worst(["won", "tied", "missing", "lost"]) == "lost"
    assert verdicts.worst(["won", "missing", "tied"]) == "missing"
    assert verdicts.worst(["won", "tied"]) == "tied"
    assert verdicts.worst(["won", "won"]) == "won"
