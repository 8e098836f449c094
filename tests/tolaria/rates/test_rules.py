"""The rule of a seed's learning rate, in each state of the seed."""

from __future__ import annotations

import math

import pytest
import torch

from tolaria.rates.rules import RateRule, SeedRate, norm_ratio


def test_the_constant_rule_is_the_factor() -> None:
    """Nothing else enters, whatever the seed's age."""
    assert [RateRule(0.3).multiplier(SeedRate(steps)) for steps in (0, 1, 10**6)] == [0.3] * 3


def test_a_warm_up_rises_linearly_to_the_full_rate() -> None:
    """The first step has a share above 0, the last one of the warm-up all of it."""
    rule = RateRule(0.5, warmup_steps=4)
    found = [rule.multiplier(SeedRate(steps)) for steps in range(6)]
    assert found == [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]
    assert [rule.is_warming_up(SeedRate(steps)) for steps in (0, 3, 4)] == [True, True, False]


@pytest.mark.parametrize("rule", [RateRule(), RateRule(2.0, 5), RateRule(kind="variance_transfer")])
def test_a_frozen_seed_has_no_rate(rule: RateRule) -> None:
    """Zero, under every rule and at every age."""
    assert rule.multiplier(SeedRate(steps=3, ratio=0.7, frozen=True)) == 0.0


def test_variance_transfer_is_the_ratio_of_frobenius_norms() -> None:
    """Over all the parameters of either side, as in the paper."""
    seed = [torch.full((2, 2), 3.0), torch.zeros(5)]
    host = [torch.full((4,), 4.0), torch.full((9,), 2.0)]
    assert norm_ratio(seed, host) == pytest.approx(6.0 / 10.0)
    assert RateRule(0.5).multiplier(SeedRate(ratio=0.6)) == pytest.approx(0.3)


def test_a_ratio_that_could_stop_or_break_a_seed_is_bounded() -> None:
    """All zero, not a number, or far larger than its host: still a rate that trains. A site that
    has no parameters gives no ratio."""
    ones = [torch.ones(4)]
    assert norm_ratio([torch.zeros(4)], ones) == 0.1
    assert norm_ratio([torch.full((4,), math.nan)], ones) == 0.1
    assert norm_ratio([torch.full((4,), 1e6)], ones) == 10.0
    assert norm_ratio(ones, []) == 1.0
