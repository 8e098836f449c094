"""The latency watch: one alert when a p95 has drifted, one word when it is back."""

from __future__ import annotations

import pytest

from leyline import BoundaryTiming, LatencyAlert
from tolaria.boundary.latency_watch import LatencyWatch


def _timings(apply_ms: list[float]) -> list[BoundaryTiming]:
    return [
        BoundaryTiming(epoch=epoch, gather_ms=0.1, decide_ms=0.2, apply_ms=ms, outside_ms={})
        for epoch, ms in enumerate(apply_ms, start=1)
    ]


def _alerts(apply_ms: list[float]) -> list[LatencyAlert]:
    watch = LatencyWatch()
    return [alert for timing in _timings(apply_ms) for alert in watch.observe(timing)]


def test_a_drift_is_told_once_and_its_end_once() -> None:
    """Ten good boundaries, then slow ones for good: one alert, for the part and not the sum, after
    three boundaries over the p95; once the slow ones have left the window, one resolution."""
    begun, ended = _alerts([2.0] * 10 + [12.0] * 15 + [2.0] * 30)
    assert (begun.part, begun.resolved, begun.limit_ms) == ("apply", False, 10.0)
    assert begun.epoch == 14, "two slow ones from 12, over the p95 at 12, 13 and 14"
    assert begun.p95_ms == pytest.approx(12.0)
    assert (ended.part, ended.resolved) == ("apply", True)
    assert ended.p95_ms < 10.0
    assert 25 < ended.epoch <= 45


def test_the_sum_has_a_limit_of_its_own() -> None:
    """Boundaries of 20 ms are over both limits: apply's, and that of all three."""
    assert {alert.part for alert in _alerts([20.0] * 10)} == {"apply", "all three"}


@pytest.mark.parametrize("at", [0, 3, 4, 19])
def test_one_slow_boundary_is_no_drift(at: int) -> None:
    """Wherever it falls, a single one is not worth an alert."""
    apply_ms = [2.0] * 40
    apply_ms[at] = 500.0
    assert _alerts(apply_ms) == []


def test_a_few_boundaries_say_nothing() -> None:
    """Four slow ones are too few to take a percentile of."""
    assert _alerts([50.0] * 4) == []


def test_values_at_the_limit_are_within_it() -> None:
    """10 ms is allowed."""
    assert _alerts([10.0] * 30) == []
