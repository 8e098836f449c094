"""Settling: a grafted seed moves on by one stage a boundary, and the counterfactual may veto."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline import LIFECYCLE, Advance, Cull, Evidence, Stage, refusal
from tamiyo import SettlingRules
from tamiyo.settling import settle, unsettled
from tests.tamiyo.boundaries import NAN, Row, grafted, judged, rows, state, tried

RULES = SettlingRules()


@pytest.mark.parametrize(
    ("was", "to"),
    [
        (Stage.GRAFTING, Stage.STABILIZATION),
        (Stage.STABILIZATION, Stage.EVALUATING),
        (Stage.FINE_TUNING, Stage.FOSSILIZED),
    ],
)
def test_moves_on(was: Stage, to: Stage) -> None:
    """After an epoch in its stage a grafted seed is asked to move on by one; not before."""
    (command,) = settle(state(grafted("block1/0", was)), RULES)
    assert isinstance(command, Advance)
    assert (command.seed, command.to) == ("block1/0", to)
    assert command.cause
    assert settle(state(grafted("block1/0", was, epochs_in_stage=0)), RULES) == []


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.99])
def test_a_graft_waits_for_its_alpha(alpha: float) -> None:
    """A seed that is still being blended in stays in GRAFTING."""
    assert settle(state(grafted("block1/0", Stage.GRAFTING, alpha=alpha)), RULES) == []


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_a_failed_graft_is_taken_out(alpha: float) -> None:
    """A seed in GRAFTING with errors goes, with an embargo, whatever its alpha and the veto."""
    row = grafted("block1/0", Stage.GRAFTING, alpha=alpha, error_count=3)
    for veto in (True, False):
        (command,) = settle(state(row), SettlingRules(veto=veto, embargo_epochs=4))
        assert isinstance(command, Cull)
        assert (command.seed, command.embargo_epochs) == ("block1/0", 4)
        assert f"failed at alpha {alpha:g}" in command.cause
    early = grafted("block1/0", Stage.GRAFTING, error_count=3, epochs_in_stage=0)
    assert settle(state(early), RULES) == []
    later = grafted("block1/0", Stage.STABILIZATION, error_count=3)
    assert isinstance(settle(state(later), RULES)[0], Advance)
    assert is_unsettled(row), "a race waits until the embargo is known"


@settings(max_examples=100)
@given(st.floats(-1, 1, width=32), st.floats(0, 0.5, width=32))
def test_counterfactual_veto(gain: float, error: float) -> None:
    """A seed goes on if and only if its gain is above two standard errors; else it is culled."""
    (command,) = settle(state(judged("block1/0", gain, error)), RULES)
    if gain > 2 * error:
        assert isinstance(command, Advance)
        assert command.to == Stage.FINE_TUNING
    else:
        assert isinstance(command, Cull)
        assert command.embargo_epochs == 15
    assert f"{gain:.4f} +- {error:.4f}" in command.cause


@pytest.mark.parametrize(("gain", "error"), [(-0.5, 0.01), (0.0, 0.0), (0.25, 0.125), (0.1, 0.2)])
def test_examples_of_a_veto(gain: float, error: float) -> None:
    """Harm, nothing at all, exactly two errors, and noise are culled."""
    (command,) = settle(state(judged("block1/0", gain, error)), RULES)
    assert isinstance(command, Cull)


def test_of_several_that_fail_the_worst_goes_and_the_others_are_measured_again() -> None:
    """Of two that do the same each looks useless beside the other. One that passes goes on, no race
    is called meanwhile, and once the worst is gone the verdict on the next is as for one alone.
    """
    failing = judged("block1/0", 0.02, 0.02), judged("block2/0", 0.01, 0.02)
    sound = judged("block3/0", 0.5, 0.02)
    known = state(*failing, sound)
    commands = settle(known, RULES)
    assert {c.seed: type(c) for c in commands} == {"block2/0": Cull, "block3/0": Advance}
    assert [row.seed for row in unsettled(known, commands)] == ["block1/0"]
    (alone,) = settle(state(failing[0]), RULES)
    assert isinstance(alone, Cull)


@pytest.mark.parametrize(("gain", "error"), [(NAN, NAN), (0.5, NAN), (NAN, 0.1)])
def test_a_missing_measurement_moves_nothing(gain: float, error: float) -> None:
    """A seed whose counterfactual, or its error, was not measured is kept where it is."""
    for veto in (True, False):
        assert settle(state(judged("block1/0", gain, error)), SettlingRules(veto=veto)) == []


@settings(max_examples=50)
@given(rows())
def test_without_the_veto_nothing_is_culled(given_rows: tuple[Row, ...]) -> None:
    """With veto=False no seed is ever culled, but those whose graft failed."""
    failed = {r.seed for r in given_rows if r.stage is Stage.GRAFTING and r.error_count}
    commands = settle(state(*given_rows), SettlingRules(veto=False))
    assert {command.seed for command in commands if isinstance(command, Cull)} <= failed


@settings(max_examples=100)
@given(rows())
def test_asks_for_legal_transitions_alone(given_rows: tuple[Row, ...]) -> None:
    """Whatever the state, everything that settling asks for is allowed by the lifecycle."""
    by_name = {row.seed: row for row in given_rows}
    for command in settle(state(*given_rows), RULES):
        row = by_name[command.seed]
        taken_out = Stage.ROLLED_BACK if row.stage is Stage.GRAFTING else Stage.CULLED
        to = Stage(command.to) if isinstance(command, Advance) else taken_out
        gain = None if math.isnan(row.counterfactual_gain) else row.counterfactual_gain
        evidence = Evidence(
            epochs_in_stage=row.epochs_in_stage, alpha=row.alpha, counterfactual_gain=gain
        )
        assert refusal(row.stage, to, evidence) is None
        assert LIFECYCLE[row.stage].in_forward, "trials are not settled, they are judged"


@settings(max_examples=50)
@given(rows())
def test_at_most_one_command_for_a_seed(given_rows: tuple[Row, ...]) -> None:
    """No seed is asked to move twice at one boundary."""
    seeds = [command.seed for command in settle(state(*given_rows), RULES)]
    assert len(seeds) == len(set(seeds))


def is_unsettled(row: Row) -> bool:
    known = state(row)
    return bool(unsettled(known, settle(known, RULES)))


@pytest.mark.parametrize("stage", Stage)
def test_what_a_race_would_disturb(stage: Stage) -> None:
    """A race waits for a seed from its germination until it is past EVALUATING."""
    waits = {Stage.GERMINATED, Stage.TRAINING, Stage.GRAFTING, Stage.STABILIZATION}
    assert is_unsettled(grafted("block1/0", stage)) is (stage in waits)


def test_evaluating() -> None:
    """A seed just come to EVALUATING is waited for; judged, culled or not measurable it is not."""
    assert is_unsettled(grafted("block1/0", Stage.EVALUATING, epochs_in_stage=0))
    assert not is_unsettled(judged("block1/0", 0.5, 0.01))
    assert not is_unsettled(judged("block1/0", -0.5, 0.01))
    assert not is_unsettled(judged("block1/0", NAN, NAN))


def test_a_judged_race_is_not_waited_for_twice() -> None:
    """A candidate that is being cancelled counts as gone; one that is being grafted does not."""
    known = state(tried("block1/0", 0.5))
    for to, waits in ((Stage.CANCELLED, False), (Stage.GRAFTING, True)):
        command = Advance(seed="block1/0", to=int(to), cause="")
        assert bool(unsettled(known, [command])) is waits
