"""The lifecycle: the table is the design's, guards refuse, and every refusal says why."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline import (
    GUARDS,
    LIFECYCLE,
    SOURCES,
    TRANSITIONS,
    Evidence,
    LifecycleError,
    Stage,
    allowed,
    validate,
)
from leyline import refusal as refusal_of
from tests.evidence import SATISFIED

# The design's table, written out again: stage, in the forward pass, trained in the live host,
# least epochs, leaves to.
DESIGN: dict[int, tuple[str, bool, bool, int, set[int]]] = {
    0: ("DORMANT", False, False, 0, {1}),
    1: ("GERMINATED", False, False, 0, {2, 9}),
    2: ("TRAINING", False, False, 0, {3, 8, 9}),
    3: ("GRAFTING", True, True, 1, {4, 10}),
    4: ("STABILIZATION", True, False, 1, {5, 10}),
    5: ("EVALUATING", True, False, 1, {6, 8, 10}),
    6: ("FINE_TUNING", True, True, 1, {7, 8, 10}),
    7: ("FOSSILIZED", True, True, 0, set()),
    8: ("CULLED", False, False, 0, {0}),
    9: ("CANCELLED", False, False, 0, {0}),
    10: ("ROLLED_BACK", False, False, 0, {0}),
}
WITHDRAWALS = {8, 9, 10}

# What each guard needs: its name, evidence that passes, evidence that fails.
GUARDED: dict[tuple[int, int], tuple[str, dict[str, object], dict[str, object] | None]] = {
    (1, 2): ("blueprint_proven", {"blueprint_proven": True}, {"blueprint_proven": False}),
    (2, 3): ("trial_settled", {"trial_settled": True}, {"trial_settled": False}),
    (3, 4): ("alpha_is_one", {"alpha": 1.0}, {"alpha": 0.999}),
    (5, 6): ("counterfactual_measured", {"counterfactual_gain": -0.5}, None),
    (5, 8): ("counterfactual_measured", {"counterfactual_gain": -0.5}, None),
    (8, 0): ("embargo_over", {"embargo_epochs_left": 0}, {"embargo_epochs_left": 1}),
    (10, 0): ("embargo_over", {"embargo_epochs_left": 0}, {"embargo_epochs_left": 1}),
}

PAIRS = [(was, asked) for was in Stage for asked in Stage]
EDGES = [(was, asked) for was, asked in PAIRS if asked in DESIGN[was][4]]


def named(pair: object) -> str:
    assert isinstance(pair, tuple)
    return f"{pair[0].name}-{pair[1].name}"


# --- the table -----------------------------------------------------------------------------------


def test_the_stages() -> None:
    """There are eleven stages, with the names and numbers of the design."""
    assert {stage.value: stage.name for stage in Stage} == {n: row[0] for n, row in DESIGN.items()}


def test_the_rules() -> None:
    """Every stage has the forward pass, the training and the minimum stay of the design."""
    rules = {
        stage.value: (rule.in_forward, rule.trains_in_host, rule.minimum_epochs)
        for stage, rule in LIFECYCLE.items()
    }
    assert rules == {number: row[1:4] for number, row in DESIGN.items()}


@pytest.mark.parametrize("pair", PAIRS, ids=named)
def test_every_pair(pair: tuple[Stage, Stage]) -> None:
    """With everything measured, exactly the design's 19 of 121 transitions are allowed."""
    was, asked = pair
    allowed = asked in DESIGN[was][4]
    assert (refusal_of(was, asked, SATISFIED) is None) is allowed
    assert (asked in TRANSITIONS[was]) is allowed
    assert (asked in LIFECYCLE[was].leaves_to) is allowed


def test_the_number_of_edges() -> None:
    """The design draws 19 edges between 11 stages."""
    assert len(PAIRS) == 121
    assert len(EDGES) == 19


def test_every_life_can_end() -> None:
    """From every stage a seed can reach FOSSILIZED or its place can become free again."""
    for stage in Stage:
        reached, last = {stage}, set()
        while reached != last:
            last = set(reached)
            reached |= {to for known in last for to in TRANSITIONS[known]}
        assert Stage.FOSSILIZED in reached
        assert stage is Stage.FOSSILIZED or Stage.DORMANT in reached


# --- minimum stay --------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", EDGES, ids=named)
def test_minimum_stay(pair: tuple[Stage, Stage]) -> None:
    """A seed that has not stayed its epochs may not go on; a withdrawal never waits."""
    was, asked = pair
    at_once = msgspec.structs.replace(SATISFIED, epochs_in_stage=0)
    reason = refusal_of(was, asked, at_once)
    if DESIGN[was][3] == 0 or asked in WITHDRAWALS:
        assert reason is None
    else:
        assert reason == "it has stayed 0 of at least 1 epochs"


# --- guards --------------------------------------------------------------------------------------


def test_the_guarded_edges() -> None:
    """Exactly these edges have a guard, under these names."""
    found = {edge: tuple(guard.name for guard in guards) for edge, guards in GUARDS.items()}
    assert found == {edge: (name,) for edge, (name, _, _) in GUARDED.items()}


@pytest.mark.parametrize("pair", GUARDED, ids=lambda pair: named(tuple(map(Stage, pair))))
def test_guards(pair: tuple[int, int]) -> None:
    """A guard lets pass what it asks for, and refuses by name what is missing or fails."""
    was, asked = map(Stage, pair)
    name, passing, failing = GUARDED[pair]
    assert refusal_of(was, asked, Evidence(epochs_in_stage=1, **passing)) is None  # type: ignore[arg-type] # by name
    for evidence in ({}, failing):
        if evidence is not None:
            with pytest.raises(LifecycleError, match=rf"\(guard {name}\)"):
                validate("a/0", was, asked, Evidence(epochs_in_stage=1, **evidence))  # type: ignore[arg-type] # by name


@pytest.mark.parametrize("pair", EDGES, ids=named)
def test_no_other_edge_needs_a_measurement(pair: tuple[Stage, Stage]) -> None:
    """With nothing measured, an edge is refused if and only if it is guarded."""
    reason = refusal_of(*pair, Evidence(epochs_in_stage=1))
    assert (reason is not None) is (pair in GUARDED)


FIELDS = {(was, asked): guard.field for (was, asked), (guard,) in GUARDS.items()}


@pytest.mark.parametrize("pair", GUARDED, ids=lambda pair: named(tuple(map(Stage, pair))))
def test_a_guard_tests_a_number_and_a_column_alike(pair: tuple[int, int]) -> None:
    """The same test on one value and on many; None and NaN refuse in words, NaN as False."""
    (guard,) = GUARDS[Stage(pair[0]), Stage(pair[1])]
    values = [0.0, 1.0, 0.5, -1.0, math.inf, -math.inf, math.nan]
    column = guard.test(np.array(values))
    assert column.tolist() == [guard.test(value) for value in values]
    assert not column[-1]
    for value in (*values, None):
        evidence = Evidence(epochs_in_stage=1, **{guard.field: value})
        missing = value is None or math.isnan(value)
        assert (guard.refusal(evidence) is None) is (not missing and bool(guard.test(value)))
        if missing:
            assert guard.refusal(evidence) == guard.missing


COLUMNS = st.fixed_dictionaries(
    {
        "epochs_in_stage": st.integers(0, 2),
        "blueprint_proven": st.sampled_from([math.nan, 0.0, 1.0]),
        "trial_settled": st.sampled_from([math.nan, 0.0, 1.0]),
        "alpha": st.sampled_from([math.nan, 0.0, 0.999, 1.0]),
        "counterfactual_gain": st.sampled_from([math.nan, -1.0, 0.0, math.inf]),
        "embargo_epochs_left": st.sampled_from([math.nan, 0.0, 3.0]),
    }
)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from(Stage), COLUMNS), min_size=1, max_size=30))
def test_a_column_is_answered_as_its_rows(rows: list[tuple[Stage, dict[str, float]]]) -> None:
    """For every stage asked for, `allowed` is True exactly where `refusal` is None."""
    stage = np.array([row for row, _ in rows], dtype=np.int32)
    evidence = {name: np.array([known[name] for _, known in rows]) for name in rows[0][1]}
    for asked in Stage:
        single = [
            refusal_of(was, asked, Evidence(**known)) is None  # type: ignore[arg-type] # NaN too
            for was, known in rows
        ]
        assert allowed(stage, asked, evidence).tolist() == single
        for field in {FIELDS[was, to] for was, to in FIELDS if to is asked}:
            less = {name: column for name, column in evidence.items() if name != field}
            unguarded = [(was, asked) not in FIELDS for was, _ in rows]
            both = [a and b for a, b in zip(single, unguarded, strict=True)]
            assert allowed(stage, asked, less).tolist() == both


def test_sources_are_the_edges() -> None:
    """Bit `was` of SOURCES[to] is set for the design's edges and for no other pair."""
    for was, asked in PAIRS:
        assert bool(SOURCES[asked] >> was & 1) is (asked in DESIGN[was][4])


# --- refusals ------------------------------------------------------------------------------------


def test_an_illegal_request_names_everything() -> None:
    """A refusal names the seed, its stage, what was asked, and all that is allowed."""
    with pytest.raises(LifecycleError) as caught:
        validate("conv1/0", Stage.TRAINING, Stage.FOSSILIZED, SATISFIED)
    assert caught.value.asked == "FOSSILIZED"
    assert caught.value.allowed == ("GRAFTING", "CULLED", "CANCELLED")
    assert str(caught.value) == (
        "seed 'conv1/0' is TRAINING and cannot become FOSSILIZED: the lifecycle has no such "
        "transition; TRAINING leaves to GRAFTING, CULLED, CANCELLED"
    )


def test_a_fossil_is_permanent() -> None:
    """Nothing can be asked of a fossil, and the refusal says that it is an end."""
    for asked in Stage:
        with pytest.raises(LifecycleError, match="FOSSILIZED leaves to nothing: it is an end"):
            validate("a/0", Stage.FOSSILIZED, asked, SATISFIED)


MAY_PASS: dict[str, Callable[[Evidence], bool]] = {
    "blueprint_proven": lambda evidence: evidence.blueprint_proven is True,
    "trial_settled": lambda evidence: evidence.trial_settled is True,
    "alpha_is_one": lambda evidence: evidence.alpha is not None and evidence.alpha == 1,
    "counterfactual_measured": lambda evidence: evidence.counterfactual_gain is not None,
    "embargo_over": lambda e: e.embargo_epochs_left is not None and e.embargo_epochs_left <= 0,
}

EVIDENCE = st.builds(
    Evidence,
    epochs_in_stage=st.integers(0, 2),
    blueprint_proven=st.sampled_from([None, False, True]),
    trial_settled=st.sampled_from([None, False, True]),
    alpha=st.sampled_from([None, 0.0, 0.5, 1.0]),
    counterfactual_gain=st.sampled_from([None, -1.0, 0.0, 1.0]),
    embargo_epochs_left=st.sampled_from([None, 0, 3]),
)


def legal(was: Stage, asked: Stage, evidence: Evidence) -> bool:
    """Whether the design allows it, worked out from the literals of this file."""
    if asked not in DESIGN[was][4]:
        return False
    if asked not in WITHDRAWALS and evidence.epochs_in_stage < DESIGN[was][3]:
        return False
    guard = GUARDED.get((was, asked))
    return guard is None or MAY_PASS[guard[0]](evidence)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(Stage), EVIDENCE), max_size=40))
def test_random_walk(requests: list[tuple[Stage, Evidence]]) -> None:
    """However a seed is pushed, it moves along legal edges alone; a refusal says why."""
    stage = Stage.DORMANT
    for asked, evidence in requests:
        if legal(stage, asked, evidence):
            validate("a/0", stage, asked, evidence)
            stage = asked
            continue
        with pytest.raises(LifecycleError) as caught:
            validate("a/0", stage, asked, evidence)
        error = caught.value
        assert error.reason
        assert error.reason == refusal_of(stage, asked, evidence)
        assert (error.was, error.asked) == (stage.name, asked.name)
        assert set(error.allowed) == {Stage(to).name for to in DESIGN[stage][4]}


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 2), EVIDENCE), max_size=60))
def test_walk_along_edges(choices: list[tuple[int, Evidence]]) -> None:
    """A walk that asks for neighbours alone, so that it goes deep, agrees with the design too."""
    stage = Stage.DORMANT
    for choice, evidence in choices:
        neighbours = sorted(DESIGN[stage][4])
        if not neighbours:
            return
        asked = Stage(neighbours[choice % len(neighbours)])
        reason = refusal_of(stage, asked, evidence)
        assert (reason is None) is legal(stage, asked, evidence)
        stage = asked if reason is None else stage
