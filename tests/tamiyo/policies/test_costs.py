"""Costs and winners: what candidates are compared by, and who is grafted beside the best."""

from __future__ import annotations

import pytest

from leyline import Decision, Stage
from tamiyo import HeuristicPolicy, HeuristicRules
from tests.tamiyo.boundaries import Row, grafted, state, tried

CHEAP = tried("block1/0", 0.50, blueprint="norm", parameters=10)
DEAR = tried("block2/0", 0.60, blueprint="conv", parameters=10)
COSTS = {"norm": 0.0, "conv": 0.44}


def judge(*rows: Row, **rules: float) -> Decision:
    policy = HeuristicPolicy(HeuristicRules(**{"rent_per_host": 0.0, **rules}))  # type: ignore[arg-type] # numbers
    return policy.decide(state(*rows, step_costs=COSTS))


def chosen(decision: Decision) -> list[str]:
    return [score.seed for score in decision.scores if score.chosen]


@pytest.mark.parametrize(("power", "winner"), [(0.0, "block2/0"), (0.5, "block1/0")])
def test_a_gain_is_weighed_against_the_work_of_a_step(power: float, winner: str) -> None:
    """0.60 for 44 % more work is worth 0.60 / 1.2 = 0.50 at power 0.5 and loses to a whisker more;
    at power 0 it wins.
    """
    better = tried("block1/0", 0.502, blueprint="norm", parameters=10)
    decision = judge(better, DEAR, cost_power=power, max_grafts_per_race=1)
    assert chosen(decision) == [winner]
    values = [score.value for score in decision.scores]
    assert values == [pytest.approx(0.502), pytest.approx(0.6 / 1.44**power)]
    assert ("once rent for its costs is taken off" in decision.cause) is (power > 0)


def test_the_scores_show_what_was_weighed() -> None:
    """FLOPs, step cost and value of every candidate, NaN where nothing was measured."""
    failed = tried("block3/0", float("nan"), error_count=1)
    scores = judge(CHEAP, DEAR, failed, cost_power=1.0, rent_per_host=0.5).scores
    assert [score.flops for score in scores] == [2, 2, 2]
    assert [score.step_cost for score in scores] == [0.0, 0.44, 0.44]
    assert scores[0].value == pytest.approx(0.5 - 0.5 * 10 / 1000)
    assert scores[1].value == pytest.approx((0.6 - 0.005) / 1.44)
    assert scores[2].value != scores[2].value


def test_a_cost_does_not_lower_what_is_asked() -> None:
    """A gain below its threshold is not grafted, however cheap it is."""
    assert chosen(judge(tried("block1/0", 5e-4, error=0.0), cost_power=1.0)) == []


def test_what_the_host_gains_by_itself() -> None:
    """With a share of 1 a candidate must exceed what the host gained in as many steps; with the
    share of 0 of the default, or where that was not measured, it need not.
    """
    for host_gain, share, passes in ((0.51, 1.0, False), (0.49, 1.0, True), (0.51, 0.0, True)):
        policy = HeuristicPolicy(HeuristicRules(host_gain_share=share))
        decision = policy.decide(state(CHEAP, host_gain=host_gain))
        assert f"the host alone gained {host_gain:.4f} +- " in decision.cause
        assert bool(chosen(decision)) is passes
    assert chosen(HeuristicPolicy(HeuristicRules(host_gain_share=1.0)).decide(state(CHEAP)))


SECOND = tried("block2/0", 0.4, parameters=300)
SAME_SITE = tried("block1/1", 0.45, parameters=300)
BEST = tried("block1/0", 0.5, parameters=300)
POOR = tried("block3/0", 0.02, parameters=300)


def test_two_winners_unless_other_is_asked_for() -> None:
    """By default the best two of three sites are grafted, with a cap of one the best alone."""
    third = tried("block3/0", 0.3, parameters=300)
    assert chosen(judge(third, BEST, SECOND)) == ["block1/0", "block2/0"]
    assert chosen(judge(third, BEST, SECOND, max_grafts_per_race=1)) == ["block1/0"]


def test_the_second_best_at_another_site_joins_the_best() -> None:
    """One at the same site does not, one below its own threshold does not, and the cause names
    both winners.
    """
    decision = judge(POOR, SAME_SITE, SECOND, BEST, max_grafts_per_race=3)
    assert chosen(decision) == ["block2/0", "block1/0"]
    first, second = decision.cause.split("; ")
    assert first.startswith("conv at block1 won the race of 4 with a held-out gain of 0.5000")
    assert second.startswith("conv at block2 won the race of 4")


def test_why_one_that_passes_is_passed_over() -> None:
    """Each command says what stood in its way, and a race that only the cap kept from a graft is
    not said to have missed its threshold.
    """

    def causes(*rows: Row, **rules: int) -> list[str]:
        return [command.cause for command in judge(*rows, **rules).commands]

    large = tried("block3/0", 0.3, parameters=600)
    found = causes(BEST, SAME_SITE, SECOND, large, max_grafts_per_race=3)
    assert [cause.partition(": ")[2] for cause in found] == [
        "",
        "a better one won at its site, or at one inside or around it",
        "",
        "its 600 parameters exceed the 400 that are left then",
    ]
    assert causes(BEST, SECOND, max_grafts_per_race=1)[1].endswith("1 of a race are grafted")
    fossil = grafted("block3/1", Stage.FOSSILIZED)
    full = judge(fossil, BEST, max_grafts=1)
    assert full.cause.startswith("no graft: the best of 1, conv at block1, has a held-out gain")
    assert full.cause.endswith("but no more than 1 grafts may stand")


@pytest.mark.parametrize("other", ["block1.body", "block1.body.0", "block1"])
def test_one_inside_the_other_is_one_place(other: str) -> None:
    """Two sites of which one is a module in the other never win together; a like name does."""
    sites = ("block1.body", "block1.body.0", "block1", "block1.body2")

    def winners(second: str) -> list[str]:
        rows = tried("block1.body/0", 0.5), tried(f"{second}/1", 0.4)
        known = state(*rows, candidates=[(site, "conv") for site in sites])
        return chosen(HeuristicPolicy().decide(known))

    assert winners(other) == ["block1.body/0"]
    assert winners("block1.body2") == ["block1.body/0", "block1.body2/1"]


def test_the_budget_is_for_the_sum() -> None:
    """A second winner that alone would fit, but not beside the first, is left; a smaller third
    takes its place.
    """
    large = tried("block2/0", 0.4, parameters=600)
    small = tried("block3/0", 0.3, parameters=400)
    winner = tried("block1/0", 0.5, parameters=600)
    assert chosen(judge(winner, large, small, max_grafts_per_race=2)) == ["block1/0", "block3/0"]


def test_the_cap_is_for_the_sum() -> None:
    """With one graft standing and a cap of two, one more is grafted."""
    fossil = grafted("block3/1", Stage.FOSSILIZED)
    decision = judge(fossil, BEST, SECOND, max_grafts_per_race=2, max_grafts=2)
    assert chosen(decision) == ["block1/0"]


def test_the_first_gain_is_the_best_winners() -> None:
    """What later grafts are measured by is the best of several."""
    policy = HeuristicPolicy(HeuristicRules(max_grafts_per_race=2))
    policy.decide(state(SECOND, BEST))
    assert policy.state_dict()["first_gain"] == 0.5


def test_every_decision_says_what_comes_next() -> None:
    """A graft, a miss, the last miss, a race called, a race waited for: each has its next step."""
    policy = HeuristicPolicy()
    assert policy.decide(state(BEST)).next_step.startswith("alpha rises to 1")
    miss = tried("block1/0", -1.0)
    assert policy.decide(state(miss)).next_step == "growth stops after 1 more"
    assert policy.decide(state(miss)).next_step == "growth has stopped"
    fresh = HeuristicPolicy()
    assert fresh.decide(state()).next_step == "9 candidates on trial, then a verdict"
    untried = Row("block1/0", stage=Stage.TRAINING)
    assert fresh.decide(state(untried)).next_step == "it is judged after that"
    settling = grafted("block1/0", Stage.STABILIZATION)
    assert fresh.decide(state(settling)).next_step == "once they have, the next race"
