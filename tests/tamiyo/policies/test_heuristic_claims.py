"""The heuristic policy on any state: what it never does, whatever it has been through."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import leyline
from leyline import LIFECYCLE, Advance, Cull, Germinate, RiskLevel, Schema, Stage, StatePacket
from tamiyo import HeuristicPolicy, HeuristicRules, State
from tests.tamiyo.boundaries import (
    BLUEPRINTS,
    PARAMETERS,
    SITES,
    Row,
    boundaries,
    boundary,
    judged,
    rows,
    sent,
    state,
    tried,
)

PAIRS = st.tuples(st.sampled_from(SITES), st.sampled_from(BLUEPRINTS))
RULES = st.builds(
    HeuristicRules,
    max_grafts=st.sampled_from([None, 3, 1]),
    max_grafts_per_race=st.sampled_from([3, 2, 1]),
    max_candidates=st.sampled_from([32, 4, 1]),
    narrow_to=st.sampled_from([8, 2, 0]),
    search_share=st.sampled_from([1.0, 0.3, 0.0]),
    cost_power=st.sampled_from([0.0, 0.5]),
    monitor_mode=st.sampled_from(["min", "max", "auto"]),
    plateau_epochs=st.integers(0, 2),
    underfit_gap=st.sampled_from([0.0, 0.5]),
)
SAVED = st.fixed_dictionaries(
    {
        "first_gain": st.sampled_from([0.0, 0.5]),
        "misses": st.sampled_from([0, 1, 2]),
        "races": st.integers(0, 5),
        "ranking": st.lists(PAIRS.map(list), max_size=5),
        "spending": st.fixed_dictionaries(
            {
                "before": st.integers(0, 10**6),
                "of_a_step": st.floats(0, 1e9),
                "steps": st.lists(st.integers(0, 200), max_size=3),
                "host_step": st.integers(0, 10**6),
            }
        ),
        "removals": st.builds(
            lambda pairs: {"counts": [[s, 0, b, 1] for s, b in sorted(pairs)], "out": []},
            st.sets(PAIRS, max_size=3),
        ),
        "trend": st.lists(st.floats(0, 1), max_size=3),
    }
)


@st.composite
def raced(draw: st.DrawFn) -> tuple[StatePacket, Schema]:
    """A finished race in which most candidates did well, with little budget left."""
    kinds = draw(st.lists(st.sampled_from(BLUEPRINTS), min_size=4, max_size=8))
    candidates = [
        tried(
            f"{SITES[number % 3]}/{number}",
            draw(st.sampled_from([0.9, 0.5, 0.3, -0.1])),
            blueprint=kind,
            parameters=PARAMETERS[kind],
        )
        for number, kind in enumerate(kinds)
    ]
    return boundary(*candidates, grown_parameters=draw(st.sampled_from([450, 650, 850])))


IDLE = (Stage.DORMANT, Stage.FOSSILIZED, Stage.CULLED, Stage.ROLLED_BACK, Stage.CANCELLED)


@st.composite
def idle(draw: st.DrawFn) -> tuple[StatePacket, Schema]:
    """A boundary at which a race may well be called, with little budget left."""
    gone = Row(
        f"{draw(st.sampled_from(SITES))}/9",
        blueprint=draw(st.sampled_from(["norm", "low_rank", "conv"])),
        stage=draw(st.sampled_from([Stage.CULLED, Stage.ROLLED_BACK])),
        embargo_epochs_left=draw(st.sampled_from([3, 0])),
    )
    return boundary(
        gone,
        *draw(rows(stages=IDLE)),
        epoch=draw(st.sampled_from([20, 20, 90])),
        grown_parameters=draw(st.sampled_from([650, 850, 950, 995])),
        risk_level=draw(st.sampled_from([0, 0, 1, 2])),
    )


def policy_of(rules: HeuristicRules, saved: dict[str, Any]) -> HeuristicPolicy:
    policy = HeuristicPolicy(rules)
    policy.load_state_dict(saved)
    return policy


@settings(max_examples=40)
@given(boundaries(), RULES, SAVED)
def test_pure(at: tuple, rules: HeuristicRules, saved: dict[str, Any]) -> None:  # type: ignore[type-arg] # a packet and a schema
    """With every option on, a decision and what is remembered follow from bytes: packet, schema,
    and the saved state as JSON; asked twice of the same, the answers are the same.
    """
    here, there = policy_of(rules, saved), policy_of(rules, json.loads(json.dumps(saved)))
    decision = here.decide(State(*at))
    assert leyline.encode(there.decide(State(*sent(*at)))) == leyline.encode(decision)
    assert there.state_dict() == here.state_dict()
    assert json.loads(json.dumps(here.state_dict())) == here.state_dict()
    again = policy_of(rules, saved).decide(State(*at))
    assert leyline.encode(again) == leyline.encode(decision)


@settings(max_examples=50)
@given(boundaries(), RULES, SAVED)
def test_commands_are_for_seeds_that_can_take_them(
    at: tuple,  # type: ignore[type-arg] # a packet and a schema
    rules: HeuristicRules,
    saved: dict[str, Any],
) -> None:
    """No command moves a dormant or unknown seed, none is planted on another, no seed gets two,
    and every cause is one line.
    """
    known = State(*at)
    decision = policy_of(rules, saved).decide(known)
    living = {row.seed for row in known.rows}
    for command in decision.commands:
        assert (command.seed in living) is not isinstance(command, Germinate)
        assert "\n" not in command.cause
    seeds = [command.seed for command in decision.commands]
    assert len(set(seeds)) == len(seeds)
    assert decision.cause
    assert "\n" not in decision.cause + decision.next_step


@settings(max_examples=50)
@given(raced(), RULES, SAVED)
def test_budget_and_cap_hold_for_all_winners_together(
    at: tuple,  # type: ignore[type-arg] # a packet and a schema
    rules: HeuristicRules,
    saved: dict[str, Any],
) -> None:
    """The winners of a race fit the parameters left and the cap in sum, are at sites of their own,
    no more than a race may have, and each is above its own threshold.
    """
    known = State(*at)
    decision = policy_of(rules, saved).decide(known)
    chosen = [score for score in decision.scores if score.chosen]
    assert sum(score.parameters for score in chosen) <= max(0, known.budget_left)
    assert len({score.site for score in chosen}) == len(chosen) <= rules.max_grafts_per_race
    assert all(score.gain > score.threshold for score in chosen)
    if rules.max_grafts is not None and chosen:
        standing = sum(LIFECYCLE[row.stage].in_forward for row in known.rows)
        assert standing + len(chosen) <= rules.max_grafts
    grafts = [c for c in decision.commands if isinstance(c, Advance) and c.to == Stage.GRAFTING]
    assert {command.seed for command in grafts} == {score.seed for score in chosen}


@settings(max_examples=50)
@given(idle(), RULES, SAVED)
def test_what_may_not_be_planted_is_not(
    at: tuple,  # type: ignore[type-arg] # a packet and a schema
    rules: HeuristicRules,
    saved: dict[str, Any],
) -> None:
    """Nothing is planted that is too large, or under embargo; nothing at all after the
    window, at high risk, or after two misses; and never more than may race.
    """
    known = State(*at)
    decision = policy_of(rules, saved).decide(known)
    planted = [c for c in decision.commands if isinstance(c, Germinate)]
    gone = (Stage.CULLED, Stage.ROLLED_BACK)
    closed = {
        (row.site, row.blueprint)
        for row in known.rows
        if row.stage in gone and row.embargo_epochs_left > 0
    }
    assert len(planted) <= rules.max_candidates
    for command in planted:
        assert PARAMETERS[command.blueprint] <= known.budget_left
        assert (command.site, command.blueprint) not in closed
    if planted:
        assert known.packet.risk_level < RiskLevel.ORANGE
        assert saved["misses"] < rules.max_misses
        assert known.packet.epoch != 90


@settings(max_examples=40)
@given(PAIRS, st.sets(PAIRS, min_size=3, max_size=6), st.integers(1, 4))
def test_embargoes_are_doubled_for_what_went_before(
    pair: tuple[str, str], before: set[tuple[str, str]], times: int
) -> None:
    """A cull keeps its place empty for the run's embargo, twice as long for each time that the
    policy remembers the same blueprint going from there.
    """
    counts = [[site, 0, blueprint, times] for site, blueprint in sorted(before)]
    policy = HeuristicPolicy(HeuristicRules(embargo_epochs=7))
    policy.load_state_dict({**policy.state_dict(), "removals": {"counts": counts, "out": []}})
    useless = replace(judged(f"{pair[0]}/0", -0.5, 0.01), blueprint=pair[1])
    cull = policy.decide(state(useless)).commands[0]
    assert isinstance(cull, Cull)
    assert cull.embargo_epochs == (7 * 2**times if pair in before else 7)
