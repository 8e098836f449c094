"""Spending: search keeps to its share of a run's FLOPs once two races have been called."""

from __future__ import annotations

import pytest

from leyline import Germinate
from tamiyo import HeuristicPolicy, HeuristicRules
from tamiyo.plantings import Planting
from tamiyo.spending import FREE_RACES, Spending, SpendingRules
from tests.tamiyo.boundaries import state, tried

RULES = SpendingRules(search_share=0.3)
FIELD = [Planting("block1/0", "block1", "conv"), Planting("block2/0", "block2", "norm")]
THIRD = FREE_RACES + 1
# 100 epochs of 10 steps, of which 20 are over; a step takes 1,000 FLOPs.
RUN = {"epoch": 20, "training_flops": 200_000, "step_flops": 1000}


def after_races(spent: int, number: int = FREE_RACES) -> Spending:
    """What is known after races that took as many FLOPs each; one candidate of two left early."""
    raced = state(tried("block1/0", 0.1), tried("block2/0", 0.0, trial_steps=50)).rows
    spending = Spending()
    for race in range(number):
        spending.called(state(**RUN, search_flops=race * spent))
        spending.judged(state(**RUN, search_flops=(race + 1) * spent), raced)
    return spending


def test_the_share_after_another_race() -> None:
    """Two races of 150,000 and a third like them are 450,000 beside 1,000,000 of training; with
    one candidate, which might go as far as the best did, 420,000.
    """
    spending = after_races(150_000)
    now = state(**RUN, search_flops=300_000)
    assert spending.share(now, FIELD) == pytest.approx(450 / 1450)
    assert spending.share(now, FIELD[:1]) == pytest.approx(420 / 1420)


def test_a_winner_makes_training_dearer() -> None:
    """The steps to come are counted as if the dearest candidate were in the network: here one that
    adds three times what a step took at the first race, for 800 steps.
    """
    spending = after_races(150_000)
    grown = {**RUN, "step_flops": 1500}
    now = state(**grown, search_flops=300_000, step_costs={"conv": 3.0, "norm": 1.0})
    training = 200_000 + (1500 + 3 * 1000) * 800
    assert spending.share(now, FIELD) == pytest.approx(450_000 / (450_000 + training))


def test_the_third_race_is_the_first_that_may_be_too_dear() -> None:
    """However dear, two races are called; the third only within the share, and the reason says so
    in numbers.
    """
    dear = {"search_flops": 10**9}
    for number in range(FREE_RACES):
        assert not after_races(10**8, number).why_too_dear(
            state(**RUN, **dear), FIELD, number + 1, RULES
        )
    now = state(**RUN, search_flops=300_000)
    found = after_races(150_000).why_too_dear(now, FIELD, THIRD, RULES)
    assert found == "no race: with another, 31% of the run's FLOPs go into search; 30% may go there"
    assert not after_races(100_000).why_too_dear(now, FIELD, THIRD, RULES)
    assert not after_races(150_000).why_too_dear(now, FIELD, THIRD, SpendingRules(search_share=1.0))


def test_without_numbers_it_is_not_looked_at() -> None:
    """Where no FLOPs are counted no race is too dear."""
    assert not after_races(150_000).why_too_dear(state(search_flops=300_000), FIELD, THIRD, RULES)


def test_a_run_of_unknown_length_waits_until_training_has_caught_up() -> None:
    """Only the steps that were made count there: after 200,000 FLOPs of them no race of 50,000
    after two others is called, after 400,000 one is.
    """
    spending = after_races(50_000)
    early = state(**RUN, num_epochs=0, search_flops=100_000)
    assert spending.why_too_dear(early, FIELD, THIRD, RULES)
    later = state(**{**RUN, "training_flops": 400_000}, num_epochs=0, search_flops=100_000)
    assert not spending.why_too_dear(later, FIELD, THIRD, RULES)


def test_the_heuristic_calls_no_third_race_that_is_too_dear() -> None:
    """Two races that took all but everything are the last; a policy saved between says the same."""
    first = HeuristicPolicy(HeuristicRules(max_misses=9))
    for race in range(FREE_RACES):
        spent = race * 10**8
        planted = first.decide(state(**RUN, search_flops=spent)).commands
        assert any(isinstance(command, Germinate) for command in planted)
        first.decide(state(tried("block1/0", -1.0), **RUN, search_flops=spent + 10**8))
    second = HeuristicPolicy(HeuristicRules(max_misses=9))
    second.load_state_dict(first.state_dict())
    last = state(**RUN, search_flops=FREE_RACES * 10**8)
    for policy in (first, second):
        decision = policy.decide(last)
        assert not decision.commands
        assert decision.cause.startswith("no race: with another, ")
