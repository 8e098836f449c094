"""Ranking: races after the first are of those that did best so far."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyline import Germinate, Stage
from tamiyo import HeuristicPolicy, HeuristicRules
from tamiyo.ranking import Ranking
from tests.tamiyo.boundaries import CANDIDATES, Row, state, tried

EVERYBODY = set(CANDIDATES)


def race(policy: HeuristicPolicy, *rows: Row, **options: int) -> set[tuple[str, str]]:
    """Whom a policy plants at a boundary without seeds on trial."""
    commands = policy.decide(state(*rows, **options)).commands
    return {(c.site, c.blueprint) for c in commands if isinstance(c, Germinate)}


def policy(**rules: int) -> HeuristicPolicy:
    return HeuristicPolicy(HeuristicRules(**rules))  # type: ignore[arg-type] # numbers


FINALIST = tried("block1/0", 0.1, blueprint="conv")
WINNER = tried("block1/1", 1.0, blueprint="norm")
LEFT_EARLY = tried("block2/0", 2.0, blueprint="norm", trial_steps=50)
LEFT_WORSE = tried("block2/1", 1.5, blueprint="conv", trial_steps=50)
FAILED = tried("block3/0", 9.0, blueprint="norm", error_count=1)
UNMEASURED = tried("block3/1", math.nan, blueprint="conv")
RACE = (FAILED, LEFT_WORSE, FINALIST, LEFT_EARLY, UNMEASURED, WINNER)


def test_who_ranks_before_whom() -> None:
    """Those trained longest first, of those the best gain, then what was not measured; a failed
    trial last whatever its gain.
    """
    ranking = Ranking()
    ranking.judged(HeuristicPolicy().decide(state(*RACE)).scores, ["block3/0"])
    pairs = [(row.site, row.blueprint) for row in RACE]
    known, new = ranking.split([*pairs, ("block3", "low_rank")])
    expected = (WINNER, FINALIST, UNMEASURED, LEFT_EARLY, LEFT_WORSE, FAILED)
    assert known == [(row.site, row.blueprint) for row in expected]
    assert new == [("block3", "low_rank")]


def test_later_races_are_of_the_best() -> None:
    """With four places one is for a pair that was never tried, three for the best; the cause
    counts those that sit out.
    """
    policy_ = policy(narrow_to=4)
    assert race(policy_) == EVERYBODY
    policy_.decide(state(*RACE))
    found = race(policy_)
    best = {("block1", "norm"), ("block1", "conv"), ("block3", "conv")}
    assert best < found
    assert found - best < EVERYBODY - {(row.site, row.blueprint) for row in RACE}
    assert len(found) == 4
    assert f"({len(EVERYBODY) - 4} sitting out)" in policy_.decide(state()).cause


def test_all_race_where_nobody_is_left_out() -> None:
    """With 0 every race is of all, and with fewer places than four of the best alone."""
    for narrow_to, number in ((0, len(EVERYBODY)), (3, 3), (1, 1)):
        policy_ = policy(narrow_to=narrow_to)
        race(policy_)
        policy_.decide(state(*RACE))
        found = race(policy_)
        assert len(found) == number
        assert ("block1", "norm") in found


def test_without_a_winner_the_next_in_rank_race() -> None:
    """A race that grafted nothing puts its candidates behind all others that were tried."""
    policy_ = policy(narrow_to=3)
    race(policy_)
    policy_.decide(state(*RACE))
    best = race(policy_)
    policy_.decide(state(*(tried(f"{s}/9", -1.0, blueprint=b) for s, b in best)))
    found = race(policy_)
    assert {("block2", "norm"), ("block2", "conv")} < found


@pytest.mark.parametrize("narrow_to", [1, 3])
def test_after_a_miss_who_was_never_tried_races_too(narrow_to: int) -> None:
    """Also where a quarter of the places is none; otherwise the same few would race for ever."""
    policy_ = policy(narrow_to=narrow_to)
    race(policy_)
    policy_.decide(state(*RACE))
    known = {(row.site, row.blueprint) for row in RACE}
    best = race(policy_)
    assert best < known, "while there are winners the best of those known are raced again"
    policy_.decide(state(*(tried(f"{s}/9", -1.0, blueprint=b) for s, b in best)))
    assert len(race(policy_) - known) == 1


def test_those_that_fit_race_whatever_their_rank() -> None:
    """Where the budget or an embargo leaves only those who ranked low, they race."""
    policy_ = policy(narrow_to=1)
    race(policy_)
    policy_.decide(state(*RACE))
    culled = Row("block1/1", blueprint="norm", stage=Stage.CULLED, embargo_epochs_left=5)
    assert race(policy_, culled, param_budget=50) == {("block2", "norm")}


@given(
    rounds=st.lists(
        st.lists(st.tuples(st.integers(0, 8), st.floats(-1, 1)), min_size=1, max_size=9), max_size=4
    )
)
def test_every_pair_that_was_tried_has_one_rank(rounds: list[list[tuple[int, float]]]) -> None:
    """Whatever raced, with or without a winner, twice on one site or not: no pair is lost, none is
    there twice, and saved and loaded the order is the same.
    """
    ranking = Ranking()
    tried_pairs = set()
    for candidates in rounds:
        rows = [
            tried(f"{CANDIDATES[which][0]}/{place}", gain, blueprint=CANDIDATES[which][1])
            for place, (which, gain) in enumerate(candidates)
        ]
        ranking.judged(HeuristicPolicy().decide(state(*rows)).scores, ())
        tried_pairs |= {(row.site, row.blueprint) for row in rows}
    again = Ranking()
    again.load(ranking.saved())
    known, new = again.split(CANDIDATES)
    assert known == ranking.split(CANDIDATES)[0]
    assert set(known) == tried_pairs
    assert len(known) + len(new) == len(CANDIDATES)


def test_saved() -> None:
    """A resumed policy leaves out the same ones."""
    first, second = policy(narrow_to=4), policy(narrow_to=4)
    race(first)
    first.decide(state(*RACE))
    second.load_state_dict(first.state_dict())
    assert race(second) == race(first)
    assert second.state_dict() == first.state_dict()
