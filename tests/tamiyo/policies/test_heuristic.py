"""The heuristic policy: when it calls a race, with whom, and when it stops."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import leyline
from leyline import Advance, Cull, Decision, Germinate, Stage
from tamiyo import HeuristicPolicy, HeuristicRules, State
from tests.tamiyo.boundaries import (
    CANDIDATES,
    Row,
    boundaries,
    boundary,
    grafted,
    judged,
    rows,
    sent,
    state,
    tried,
)


def planted(decision: Decision) -> list[tuple[str, str]]:
    """The (site, blueprint) pairs that a decision germinates."""
    commands = [command for command in decision.commands if isinstance(command, Germinate)]
    return [(command.site, command.blueprint) for command in commands]


def decide(*seeds: Row, policy: HeuristicPolicy | None = None, **options: Any) -> Decision:
    return (policy or HeuristicPolicy()).decide(state(*seeds, **options))


def policy_with(**saved: float) -> HeuristicPolicy:
    policy = HeuristicPolicy()
    policy.load_state_dict({**policy.state_dict(), **saved})
    return policy


# --- purity --------------------------------------------------------------------------------------

SAVED = st.fixed_dictionaries(
    {
        "first_gain": st.sampled_from([0.0, 0.5]),
        "misses": st.integers(0, 2),
        "races": st.integers(0, 5),
    }
)


@settings(max_examples=100)
@given(boundaries(), SAVED)
def test_replayed_from_bytes(at: tuple, saved: dict[str, float]) -> None:  # type: ignore[type-arg] # a packet and a schema
    """A decision and what the policy remembers follow from bytes alone: the encoded packet and
    schema, and the policy's saved state as JSON. To the last bit, twice.
    """
    here, there = policy_with(**saved), HeuristicPolicy()
    there.load_state_dict(json.loads(json.dumps(here.state_dict())))
    decision = here.decide(State(*at))
    replayed = there.decide(State(*sent(*at)))
    assert leyline.encode(replayed) == leyline.encode(decision)
    assert there.state_dict() == here.state_dict()
    again = policy_with(**saved).decide(State(*at))
    assert leyline.encode(again) == leyline.encode(decision)


@settings(max_examples=100)
@given(boundaries(), SAVED)
def test_every_decision_can_be_sent_and_says_why(at: tuple, saved: dict[str, float]) -> None:  # type: ignore[type-arg] # a packet and a schema
    """Every decision goes through the codec, has a cause, and so has every command in it."""
    decision = policy_with(**saved).decide(State(*at))
    assert leyline.decode(leyline.encode(decision)).cause == decision.cause  # type: ignore[union-attr] # a Decision
    assert decision.cause
    assert decision.epoch == at[0].epoch
    assert not decision.late
    assert all(command.cause for command in decision.commands)
    seeds = [command.seed for command in decision.commands]
    assert len(seeds) == len(set(seeds)), "no seed gets two commands"


def test_two_policies_share_nothing() -> None:
    """Two runs can live in one process: what one policy learns the other does not know."""
    first, second = HeuristicPolicy(), HeuristicPolicy()
    decide(tried("block1/0", 0.5), policy=first)
    decide(policy=first)
    assert second.state_dict() == HeuristicPolicy().state_dict() != first.state_dict()


# --- when a race is called -----------------------------------------------------------------------


def test_warm_up_and_window() -> None:
    """Of 100 epochs races are called from the 10th to the 58th, so that the last winner is whole
    at the 60th; before and after, the decision says which of the two it is.
    """
    for epoch in range(1, 101):
        decision = decide(epoch=epoch)
        assert bool(planted(decision)) is (10 <= epoch <= 58), epoch
        if epoch < 10:
            assert decision.cause == "warming up until epoch 10"
        if epoch > 58:
            assert decision.cause == "the growth window has closed"


def test_the_window_closes_on_races_alone() -> None:
    """After the window a finished race is still judged, and a graft still settles."""
    assert moves(decide(tried("block1/0", 0.5), epoch=99)) == {"block1/0": Stage.GRAFTING}
    settling = decide(grafted("block1/0", Stage.GRAFTING), epoch=99)
    assert moves(settling) == {"block1/0": Stage.STABILIZATION}


def test_a_run_of_unknown_length() -> None:
    """Without a known end, races are called from the second epoch on, for ever."""
    called = [epoch for epoch in range(1, 2000) if planted(decide(epoch=epoch, num_epochs=0))]
    assert called == list(range(2, 2000))


def moves(decision: Decision) -> dict[str, Stage]:
    advances = [command for command in decision.commands if isinstance(command, Advance)]
    return {command.seed: Stage(command.to) for command in advances}


@pytest.mark.parametrize(
    ("row", "waits"),
    [
        (grafted("block1/0", Stage.GERMINATED), True),
        (tried("block1/0", 0.5, epochs_in_stage=0), True),
        (tried("block1/0", 0.5), True),
        (grafted("block1/0", Stage.GRAFTING, alpha=0.5), True),
        (grafted("block1/0", Stage.STABILIZATION), True),
        (grafted("block1/0", Stage.EVALUATING, epochs_in_stage=0), True),
        (judged("block1/0", 0.5, 0.01), False),
        (judged("block1/0", -0.5, 0.01), False),
        (judged("block1/0", math.nan, math.nan), False),
        (grafted("block1/0", Stage.FINE_TUNING, epochs_in_stage=0), False),
        (grafted("block1/0", Stage.FOSSILIZED), False),
        (Row("block1/0", stage=Stage.CANCELLED), False),
        (Row("block1/0", stage=Stage.CULLED, embargo_epochs_left=9), False),
    ],
    ids=lambda value: value.stage.name if isinstance(value, Row) else "waits" if value else "goes",
)
def test_no_race_while_a_seed_is_unsettled(row: Row, waits: bool) -> None:
    """No race is called while a seed is on trial or settling; a judged or ended one is no bar."""
    assert bool(planted(decide(row))) is not waits


@settings(max_examples=100)
@given(rows())
def test_a_race_never_overlaps_another(given_rows: tuple[Row, ...]) -> None:
    """No decision both plants and leaves a seed in TRAINING, GRAFTING or STABILIZATION."""
    decision = decide(*given_rows)
    busy = (Stage.GERMINATED, Stage.TRAINING, Stage.GRAFTING, Stage.STABILIZATION)
    if any(row.stage in busy for row in given_rows):
        assert not planted(decision)


# --- who races -----------------------------------------------------------------------------------


def test_every_fitting_candidate_races() -> None:
    """Each pair of the schema that fits the budget gets a place of its own, in one race."""
    decision = decide()
    assert planted(decision) == list(CANDIDATES)
    seeds = [command.seed for command in decision.commands]
    assert seeds[:4] == ["block1/0", "block1/1", "block1/2", "block2/0"]
    assert decision.cause == (
        "warm-up is over; race 1, 3 kinds of blueprint, 1,000 parameters left to add"
    )


def test_a_race_of_one_kind_is_said_in_the_singular() -> None:
    """One blueprint at two sites is one kind."""
    decision = decide(candidates=[("block1", "conv"), ("block2", "conv")])
    assert "race 1, 1 kind of blueprint," in decision.cause


def test_occupied_places_are_passed_over() -> None:
    """A candidate is planted beside the seeds that are there, never on one."""
    fossil = grafted("block1/1", Stage.FOSSILIZED)
    decision = decide(Row("block1/0"), fossil, candidates=[("block1", "conv"), ("block1", "norm")])
    assert [command.seed for command in decision.commands] == ["block1/0", "block1/2"]


@pytest.mark.parametrize(("left", "kinds"), [(300, 3), (299, 2), (100, 2), (99, 1), (9, 0)])
def test_only_what_fits_the_budget_races(left: int, kinds: int) -> None:
    """A candidate may use the budget up, and not a parameter more; with none left growth ends."""
    decision = decide(grown_parameters=1000 - left)
    assert len({kind for _, kind in planted(decision)}) == kinds
    if not kinds:
        assert decision.cause == "no candidate fits the 9 parameters left"


@pytest.mark.parametrize("stage", [Stage.CULLED, Stage.ROLLED_BACK])
def test_embargo(stage: Stage) -> None:
    """A pair that was culled or rolled back is left out while its embargo lasts, and the same
    blueprint at other sites, and others at its site, are not.
    """
    row = Row("block1/0", blueprint="conv", stage=stage, embargo_epochs_left=1)
    assert set(planted(decide(row))) == set(CANDIDATES) - {("block1", "conv")}
    over = Row("block1/0", blueprint="conv", stage=stage, embargo_epochs_left=0)
    assert set(planted(decide(over))) == set(CANDIDATES)


@settings(max_examples=50)
@given(st.integers(1, 120), st.integers(1, 40))
def test_too_many_are_tried_in_turn(num_candidates: int, most: int) -> None:
    """No race has more than max_candidates; as many races as it takes try every pair once, and
    each is as full as it can be.
    """
    every = [(f"site{i}", "conv") for i in range(num_candidates)]
    policy = HeuristicPolicy(HeuristicRules(max_candidates=most))
    tried_so_far: set[tuple[str, str]] = set()
    for _ in range(math.ceil(num_candidates / most)):
        race = planted(decide(policy=policy, candidates=every))
        assert len(race) == len(set(race)) == min(most, num_candidates)
        tried_so_far |= set(race)
    assert tried_so_far == set(every)


def test_no_trial_no_race() -> None:
    """Where no trial is possible nothing is planted, and that is said."""
    decision = decide(trials_possible=False)
    assert decision.commands == ()
    assert decision.cause == "no race: no trial is possible here"


# --- what is remembered --------------------------------------------------------------------------


def test_two_misses_stop_growth() -> None:
    """After two races in a row without a winner no race is called again."""
    policy = HeuristicPolicy()
    for _ in range(2):
        assert planted(decide(policy=policy))
        assert decide(tried("block1/0", -0.1), policy=policy).cause.startswith("no graft")
    decision = decide(policy=policy)
    assert decision.commands == ()
    assert decision.cause == "growth has stopped: 2 races in a row had no winner"


def test_a_winner_forgives_a_miss() -> None:
    """Misses count only in a row."""
    policy = HeuristicPolicy()
    for gain in (-0.1, 0.5, -0.1):
        decide(tried("block1/0", gain), policy=policy)
    assert planted(decide(policy=policy))


def test_later_grafts_must_match_a_share_of_the_first() -> None:
    """After a first gain of 1.0 a gain of 0.14 no longer passes and 0.16 does; before, both do."""
    for gain, passes in ((0.14, False), (0.16, True)):
        assert moves(decide(tried("block1/0", gain)))["block1/0"] is Stage.GRAFTING
        policy = HeuristicPolicy()
        decide(tried("block1/0", 1.0), policy=policy)
        found = moves(decide(tried("block1/0", gain), policy=policy))["block1/0"]
        assert (found is Stage.GRAFTING) is passes


def test_the_first_gain_stays_the_first() -> None:
    """A larger later gain does not raise what the next one must bring."""
    policy = HeuristicPolicy()
    for gain in (0.5, 2.0):
        decide(tried("block1/0", gain), policy=policy)
    assert policy.state_dict()["first_gain"] == 0.5


# --- judging within a decision -------------------------------------------------------------------


def test_a_race_is_judged_an_epoch_after_it_was_called() -> None:
    """Candidates are judged once they have stayed an epoch; until then nothing is asked of them."""
    fresh = decide(tried("block1/0", 0.5, epochs_in_stage=0))
    assert fresh.commands == fresh.scores == ()
    done = decide(tried("block1/0", 0.5), tried("block2/0", 0.0))
    assert moves(done) == {"block1/0": Stage.GRAFTING, "block2/0": Stage.CANCELLED}
    assert len(done.scores) == 2


def test_a_race_waits_for_its_trials() -> None:
    """Where validation runs every few epochs, candidates whose trials have not been run are kept,
    no second race is called, no miss is counted, and the decision says what is waited for.
    """
    policy = HeuristicPolicy()
    untried = [Row(f"block1/{i}", stage=Stage.TRAINING, epochs_in_stage=3) for i in range(2)]
    decision = decide(*untried, policy=policy)
    assert decision.commands == decision.scores == ()
    assert decision.cause == "the race waits for the next validation pass"
    assert policy.state_dict()["misses"] == 0
    failed = decide(*(replace(row, error_count=1) for row in untried), policy=policy)
    assert set(moves(failed).values()) == {Stage.CANCELLED}, "a failed trial is an ended one"
    assert policy.state_dict()["misses"] == 1


@settings(max_examples=50)
@given(rows(), SAVED)
def test_nothing_passes_below_its_threshold(
    given_rows: tuple[Row, ...], saved: dict[str, float]
) -> None:
    """Whatever is in the table, a seed goes from TRAINING to GRAFTING only if its score is chosen
    and its gain is above the threshold.
    """
    decision = decide(*given_rows, policy=policy_with(**saved))
    grafts = {seed for seed, to in moves(decision).items() if to is Stage.GRAFTING}
    assert grafts == {score.seed for score in decision.scores if score.chosen}
    assert all(score.gain > score.threshold for score in decision.scores if score.chosen)


def test_the_veto_can_be_switched_off() -> None:
    """The settling rules of the policy reach its grafts."""
    harmful = judged("block1/0", -0.5, 0.01)
    (cull,) = [command for command in decide(harmful).commands if command.seed == "block1/0"]
    assert isinstance(cull, Cull)
    lenient = HeuristicPolicy(HeuristicRules(veto=False))
    assert moves(decide(harmful, policy=lenient))["block1/0"] is Stage.FINE_TUNING


# --- resuming ------------------------------------------------------------------------------------


def test_resuming_at_any_boundary_changes_nothing() -> None:
    """A run of races, won and lost, gives the same decisions whether or not the policy is saved
    and replaced by a fresh one before each.
    """
    many = [(f"site{i}", "conv") for i in range(50)]
    run = []
    for gain in (0.4, -0.1, 0.03, 0.5, 0.05, 0.01):
        run.append(boundary(candidates=many))
        run.append(boundary(tried("block1/0", gain)))
    undisturbed, resumed = HeuristicPolicy(), HeuristicPolicy()
    for at in run:
        saved = json.dumps(resumed.state_dict())
        resumed = HeuristicPolicy()
        resumed.load_state_dict(json.loads(saved))
        expected = undisturbed.decide(State(*at))
        assert leyline.encode(resumed.decide(State(*at))) == leyline.encode(expected)
    assert undisturbed.state_dict()["races"] > 2
    assert undisturbed.state_dict()["misses"] == 2
