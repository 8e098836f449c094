"""A row's verdict: met only if everything that was asked for was measured and holds."""

from __future__ import annotations

import math

import pytest

from bench.harness import Comparison, Peer, Quantiles, Row, Target, Verdict

OURS = Quantiles(1.0, 2.0, 3.0)


def row(**settings: object) -> Row:
    return Row(**{"id": "a/b", "claim": "it", "unit": "ms", "ours": OURS} | settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "most", "verdict"),
    [
        (Target(), None, Verdict.NO_GOAL),
        (Target(1.0, 2.0, 3.0), None, Verdict.MET),
        (Target(p50=0.9), None, Verdict.MISSED),
        (Target(p95=1.9), None, Verdict.MISSED),
        (Target(p99=2.9), None, Verdict.MISSED),
        (Target(), 1.5, Verdict.MET),
        (Target(), 1.4, Verdict.MISSED),
        (Target(p50=1.0), 1.4, Verdict.MISSED),
        (Target(p50=0.5), 1.5, Verdict.MISSED),
    ],
)
def test_every_goal_must_hold(target: Target, most: float | None, verdict: Verdict) -> None:
    """The percentiles that were asked for, and the ratio to the peer, are each within."""
    assert row(target=target, peer=Peer("it", 1.5, most=most)).verdict is verdict


def test_what_was_not_measured_is_not_met() -> None:
    """A row without figures, and a goal for a tail that was not taken."""
    assert row(ours=None, missing="no GPU").verdict is Verdict.NOT_MEASURED
    assert row(missing="no peer", target=Target(p50=9.0)).verdict is Verdict.NOT_MEASURED
    assert row(ours=Quantiles(1.0), target=Target(p95=9.0)).verdict is Verdict.MISSED


def test_a_figure_that_is_not_a_number_meets_nothing() -> None:
    """NaN is missed, as a target and as a ratio."""
    assert row(ours=Quantiles(math.nan), target=Target(p50=9.0)).verdict is Verdict.MISSED
    assert row(peer=Peer("it", math.nan, most=9.0)).verdict is Verdict.MISSED


def test_units_and_parts_are_applied_to_both() -> None:
    """A thousand seeds in 2 us are 2 ns a seed, and so is the peer's time; the ratio stays."""
    found = Comparison(Quantiles(2.0, 3.0, 4.0), Quantiles(1.0), 2.0, (0.9, 1.1))
    timed = Row.timed("a", "it", "ns a seed", found, peer="that", most=2.0, per=1000)
    assert timed.ours == Quantiles(2.0, 3.0, 4.0)
    assert timed.peer == Peer("that", 2.0, 1.0, (0.9, 1.1), 2.0)
    assert timed.verdict is Verdict.MET
