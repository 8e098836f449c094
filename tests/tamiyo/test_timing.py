"""Timing: what keeps a race from being called, whichever policy would call it."""

from __future__ import annotations

from typing import Any

import pytest

from leyline import RiskLevel, Stage
from tamiyo.timing import TimingRules, grafts_left, why_no_race
from tests.tamiyo.boundaries import Row, grafted, state, tried


def why(*rows: Row, early: bool = False, rules: TimingRules | None = None, **options: Any) -> str:
    return why_no_race(state(*rows, **options), rules or TimingRules(), early=early)


def test_warm_up_and_window() -> None:
    """Of 100 epochs a race may be called from the 10th to the 58th; with other shares, others."""
    assert [epoch for epoch in range(1, 101) if not why(epoch=epoch)] == list(range(10, 59))
    rules = TimingRules(warmup_fraction=0.02, window_fraction=0.1)
    assert [e for e in range(1, 101) if not why(epoch=e, rules=rules)] == list(range(2, 9))


def test_what_calls_early_opens_the_warm_up_alone() -> None:
    """An early call counts before the warm-up is over, and not after the window has closed."""
    assert why(epoch=1) == "warming up until epoch 10"
    assert not why(epoch=1, early=True)
    assert why(epoch=90, early=True) == "the growth window has closed"


@pytest.mark.parametrize("level", RiskLevel)
def test_no_race_at_orange_or_above(level: RiskLevel) -> None:
    """From orange on no race begins, and the level is the reason given."""
    found = why(risk_level=int(level))
    assert bool(found) is (level >= RiskLevel.ORANGE)
    if found:
        assert found == f"no race while the risk is {level.name.lower()}"


def test_the_cap_counts_what_stands() -> None:
    """Every seed in the live model counts against the cap; what is on trial or was culled does
    not; without a cap there is no number.
    """
    rows = [
        grafted("block1/0", Stage.FOSSILIZED),
        grafted("block2/0", Stage.EVALUATING),
        tried("block2/1", 0.5),
        Row("block3/0", stage=Stage.CULLED),
    ]
    assert grafts_left(state(*rows), TimingRules(max_grafts=3)) == 1
    assert grafts_left(state(*rows), TimingRules(max_grafts=1)) == 0
    assert grafts_left(state(*rows), TimingRules()) is None
    assert not why(*rows, rules=TimingRules(max_grafts=3))
    full = why(*rows, rules=TimingRules(max_grafts=2))
    assert full == "growth has stopped: no more than 2 grafts may stand"
