"""Resting: what did clearly badly in a race sits out the next ones, and comes back."""

from __future__ import annotations

import math

from leyline import Germinate
from tamiyo import HeuristicPolicy, HeuristicRules
from tamiyo.resting import Resting, RestingRules
from tests.tamiyo.boundaries import CANDIDATES, Row, state, tried

RULES = RestingRules(rest_races=2, rest_share=0.5)


def race(policy: HeuristicPolicy) -> set[tuple[str, str]]:
    """Whom a policy plants at a boundary without seeds."""
    commands = policy.decide(state()).commands
    return {(c.site, c.blueprint) for c in commands if isinstance(c, Germinate)}


def judge(policy: HeuristicPolicy, *candidates: Row) -> None:
    policy.decide(state(*candidates))


def policy(**rules: float) -> HeuristicPolicy:
    return HeuristicPolicy(HeuristicRules(**{"rest_races": 2, "rest_share": 0.5, **rules}))  # type: ignore[arg-type] # numbers


WINNER = tried("block1/0", 1.0, blueprint="conv")
BAD = tried("block2/0", 0.4, blueprint="norm")
FAIR = tried("block2/1", 0.495, blueprint="conv")
FAILED = tried("block3/0", 2.0, blueprint="norm", error_count=1)
UNMEASURED = tried("block3/1", math.nan, blueprint="conv")
EVERYBODY = set(CANDIDATES)


def test_who_sits_out_and_for_how_long() -> None:
    """Gain and error together below the share of the winner's, or a failed trial: two races; what
    was within its error of the share, won, or was not measured races on.
    """
    policy_ = policy()
    assert race(policy_) == EVERYBODY
    judge(policy_, WINNER, BAD, FAIR, FAILED, UNMEASURED)
    rest = EVERYBODY - {("block2", "norm"), ("block3", "norm")}
    assert race(policy_) == rest
    judge(policy_, WINNER)
    assert race(policy_) == rest
    judge(policy_, WINNER)
    assert race(policy_) == EVERYBODY


def test_off_by_default() -> None:
    """Unless it is asked for nobody sits out."""
    policy_ = HeuristicPolicy()
    race(policy_)
    judge(policy_, WINNER, BAD, FAILED)
    assert race(policy_) == EVERYBODY


def test_a_race_without_a_winner_calls_all_back() -> None:
    """Where the rest brought nothing, those that sat out are tried again."""
    policy_ = policy()
    race(policy_)
    judge(policy_, WINNER, BAD)
    assert len(race(policy_)) == len(EVERYBODY) - 1
    judge(policy_, tried("block1/0", -1.0))
    assert race(policy_) == EVERYBODY


def test_if_all_others_are_gone_they_race() -> None:
    """A budget that leaves only those who sit out lets them race rather than nobody."""
    policy_ = policy()
    race(policy_)
    small = [tried(f"{site}/0", 0.0, blueprint="norm") for site in ("block1", "block2", "block3")]
    judge(policy_, tried("block1/1", 1.0, blueprint="conv"), *small)
    decision = policy_.decide(state(param_budget=50))
    assert {c.blueprint for c in decision.commands if isinstance(c, Germinate)} == {"norm"}


def test_the_best_chunk_speaks_for_the_pair() -> None:
    """A blueprint that did well on one chunk of a site does not sit out for the other."""
    resting = Resting()
    known = HeuristicPolicy()
    scores = known.decide(
        state(WINNER, tried("block2/0", 0.0), tried("block2/1", 0.9), tried("block3/0", 0.0))
    ).scores
    resting.judged(scores, (), 1.0, 1, RULES)
    assert resting.at(2) == resting.at(3) == {("block3", "conv")}
    assert resting.at(4) == frozenset()


def test_saved() -> None:
    """A resumed policy leaves out the same ones, and the cause counts them."""
    first, second = policy(), policy()
    race(first)
    judge(first, WINNER, BAD)
    second.load_state_dict(first.state_dict())
    decision = second.decide(state())
    assert decision.cause.endswith("(1 sitting out)")
    assert race(first) == EVERYBODY - {("block2", "norm")}
    assert second.state_dict() == first.state_dict()
