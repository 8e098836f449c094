"""The random policy: the heuristic's times, a place and a blueprint by chance, no gate."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import leyline
from leyline import Advance, Decision, Germinate, Stage
from tamiyo import HeuristicPolicy, RandomPolicy, RandomRules, State
from tamiyo.plantings import Openings, draw_planting
from tests.tamiyo.boundaries import (
    CANDIDATES,
    Row,
    boundaries,
    boundary,
    grafted,
    sent,
    state,
    tried,
)


def drawn(policy: RandomPolicy, *rows: Row, **options: Any) -> tuple[str, str] | None:
    """What the policy plants."""
    planted = [c for c in policy.decide(state(*rows, **options)).commands if _is_planting(c)]
    assert len(planted) <= 1
    return (planted[0].site, planted[0].blueprint) if planted else None


def _is_planting(command: object) -> bool:
    return isinstance(command, Germinate)


def draws(rng_seed: int, number: int) -> list[tuple[str, str] | None]:
    policy = RandomPolicy(RandomRules(rng_seed=rng_seed))
    return [drawn(policy) for _ in range(number)]


def test_the_same_rng_seed_draws_the_same() -> None:
    """The draws follow from the RNG seed and their number alone, not from a global stream."""
    random.seed(1)
    first = draws(7, 20)
    random.seed(2)
    assert draws(7, 20) == first
    assert draws(8, 20) != first


def test_every_candidate_is_as_likely_as_the_others() -> None:
    """All are drawn, and over 1800 draws none strays by five standard deviations."""
    counts = Counter(each for rng_seed in range(30) for each in draws(rng_seed, 60))
    assert set(counts) == set(CANDIDATES)
    expected = 1800 / len(CANDIDATES)
    assert all(abs(count - expected) < 5 * math.sqrt(expected) for count in counts.values())


def test_at_the_times_of_the_heuristic() -> None:
    """At no boundary does it plant where the heuristic calls no race, and the reason is the same;
    seeds on trial or settling make both wait.
    """
    seeds = [(), (grafted("block1/0", Stage.STABILIZATION),), (grafted("a/0", Stage.FOSSILIZED),)]
    for rows in seeds:
        for epoch in range(1, 101):
            at = state(*rows, epoch=epoch, candidates=[*CANDIDATES, ("a", "conv")])
            race, draw = HeuristicPolicy().decide(at), RandomPolicy().decide(at)
            assert any(map(_is_planting, race.commands)) is any(map(_is_planting, draw.commands))
            if not race.commands:
                assert draw.cause in (race.cause, "nothing is drawn while the last one settles")


def test_the_trial_does_not_gate() -> None:
    """Whatever the gain, the seed is grafted; one whose trial failed is cancelled and the next
    one is drawn at once.
    """
    for gain in (-5.0, 5.0):
        (command,) = RandomPolicy().decide(state(tried("block1/0", gain))).commands
        assert isinstance(command, Advance)
        assert command.to == Stage.GRAFTING
        assert command.cause.startswith("drawn at random; its trial does not gate")
    failed = RandomPolicy().decide(state(tried("block1/0", 1.0, error_count=1))).commands
    assert [type(command) for command in failed] == [Advance, Germinate]
    assert isinstance(failed[0], Advance)
    assert failed[0].to == Stage.CANCELLED


def test_no_number_of_bad_trials_stops_it() -> None:
    """It loses no races: only window, budget and cap end it."""
    policy = RandomPolicy(RandomRules(max_grafts=2))
    for _ in range(9):
        assert drawn(policy)
        policy.decide(state(tried("block1/0", -1.0)))
    two = [grafted(f"block1/{number}", Stage.FOSSILIZED) for number in range(2)]
    assert drawn(policy, *two) is None
    assert drawn(policy, grown_parameters=995) is None


@given(st.integers(0, 1000), st.integers(0, 99))
def test_within_the_budget_and_off_embargo(grown_parameters: int, rng_seed: int) -> None:
    """What is drawn fits the parameters left, and is under no embargo."""
    culled = Row("block1/0", blueprint="norm", stage=Stage.CULLED, embargo_epochs_left=5)
    at = state(culled, grown_parameters=grown_parameters)
    planting = draw_planting(Openings(at), random.Random(rng_seed))  # noqa: S311 - not a secret
    if planting is None:
        assert grown_parameters > 990
        return
    assert (planting.site, planting.blueprint) != ("block1", "norm")
    size = next(c.parameters for c in at.schema.candidates if c.blueprint == planting.blueprint)
    assert grown_parameters + size <= 1000


def test_where_all_places_are_closed_there_is_no_draw() -> None:
    """Embargoes on everything leave nothing to draw, and the search for it ends."""
    rows = [
        Row(f"{site}/{n}", blueprint=kind, stage=Stage.CULLED, embargo_epochs_left=5)
        for n, (site, kind) in enumerate(CANDIDATES)
    ]
    assert drawn(RandomPolicy(), *rows) is None


@settings(max_examples=30)
@given(boundaries(), st.integers(0, 9))
def test_replayed_from_bytes(at: tuple, number: int) -> None:  # type: ignore[type-arg] # a packet and a schema
    """A decision and what is remembered follow from bytes alone, and are the same twice."""
    here, there = RandomPolicy(), RandomPolicy()
    here.load_state_dict({**here.state_dict(), "draws": number})
    there.load_state_dict(json.loads(json.dumps(here.state_dict())))
    decision: Decision = here.decide(State(*at))
    assert leyline.encode(there.decide(State(*sent(*at)))) == leyline.encode(decision)
    assert there.state_dict() == here.state_dict()


def test_resuming_at_any_boundary_changes_nothing() -> None:
    """A policy that is saved and replaced before every boundary draws as one that is not."""
    undisturbed, resumed = RandomPolicy(), RandomPolicy()
    for _ in range(10):
        saved = json.loads(json.dumps(resumed.state_dict()))
        resumed = RandomPolicy()
        resumed.load_state_dict(saved)
        at = State(*boundary())
        assert resumed.decide(at) == undisturbed.decide(at)
