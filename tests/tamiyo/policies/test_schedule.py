"""The schedule policy: plants what it was told, when it was told; hold plants nothing."""

from __future__ import annotations

from hypothesis import given, settings

import leyline
from leyline import Advance, Cull, Decision, Germinate, Stage
from tamiyo import HoldPolicy, SchedulePolicy, ScheduleRules, State
from tests.tamiyo.boundaries import NAN, Row, boundaries, judged, sent, state, tried

PLAN = (
    (3, "block1", "conv"),
    (7, "block2", "norm"),
    (7, "block1", "low_rank"),
    (7, "block1", "conv"),
)


def policy() -> SchedulePolicy:
    return SchedulePolicy(ScheduleRules(schedule=PLAN))


def only(decision: Decision) -> Advance:
    (command,) = decision.commands
    assert isinstance(command, Advance)
    return command


def test_plants_exactly_at_its_epochs() -> None:
    """Each entry is planted at the boundary that ends its epoch, and nothing at any other."""
    for epoch in range(1, 20):
        decision = policy().decide(state(epoch=epoch))
        assert all(isinstance(command, Germinate) for command in decision.commands)
        found = [(command.site, command.blueprint) for command in decision.commands]  # type: ignore[union-attr] # checked
        assert found == [(site, blueprint) for due, site, blueprint in PLAN if due == epoch]


def test_each_entry_gets_its_own_place() -> None:
    """Two entries at one site and boundary take two places, beside what is there."""
    decision = policy().decide(state(tried("block1/0", 0.1, epochs_in_stage=0), epoch=7))
    assert [command.seed for command in decision.commands] == ["block2/0", "block1/1", "block1/2"]
    assert decision.cause == "3 planted by schedule"


def test_the_trial_does_not_gate() -> None:
    """After an epoch in TRAINING a seed is grafted, whatever its gain; the cause names the gain."""
    for gain in (-5.0, 0.0, 5.0):
        command = only(policy().decide(state(tried("block1/0", gain))))
        assert command.to == Stage.GRAFTING
        assert f"its trial does not gate (gain {gain:.4f})" in command.cause


def test_the_trial_is_waited_for() -> None:
    """A seed that has just come to TRAINING, or whose trial has not been run, is left alone."""
    assert policy().decide(state(tried("block1/0", 0.5, epochs_in_stage=0))).commands == ()
    assert policy().decide(state(Row("block1/0", stage=Stage.TRAINING))).commands == ()


def test_a_failed_trial_is_cancelled() -> None:
    """A blueprint that faulted in its trial does not reach the host."""
    command = only(policy().decide(state(tried("block1/0", 0.5, error_count=1))))
    assert (command.to, command.cause) == (Stage.CANCELLED, "its trial failed")


def test_a_waived_trial_grafts() -> None:
    """Where no trial is possible the seed is grafted from zero, and the cause says so."""
    waived = Row("block1/0", stage=Stage.TRAINING)
    command = only(policy().decide(state(waived, trials_possible=False)))
    assert command.to == Stage.GRAFTING
    assert "no trial is possible here" in command.cause


def test_the_counterfactual_may_still_cull() -> None:
    """A scheduled graft that turns out useless is culled unless the veto is off."""
    useless = judged("block1/0", 0.0, 0.1)
    (command,) = policy().decide(state(useless)).commands
    assert isinstance(command, Cull)
    lenient = SchedulePolicy(ScheduleRules(schedule=PLAN, veto=False))
    assert only(lenient.decide(state(useless))).to == Stage.FINE_TUNING
    unmeasured = judged("block1/0", NAN, NAN)
    assert policy().decide(state(unmeasured)).commands == ()


@settings(max_examples=50)
@given(boundaries())
def test_replayed_from_bytes(at: tuple) -> None:  # type: ignore[type-arg] # a packet and a schema
    """A decision follows from the encoded packet and schema alone; nothing is remembered."""
    known = policy()
    decision = known.decide(State(*at))
    assert leyline.encode(policy().decide(State(*sent(*at)))) == leyline.encode(decision)
    assert leyline.encode(known.decide(State(*at))) == leyline.encode(decision)
    assert known.state_dict() == {}


@settings(max_examples=50)
@given(boundaries())
def test_hold_never_commands(at: tuple) -> None:  # type: ignore[type-arg] # a packet and a schema
    """With growth off no boundary leads to any command, score or memory."""
    hold = HoldPolicy()
    decision = hold.decide(State(*at))
    assert decision == Decision(epoch=at[0].epoch, policy="hold", cause="growth is off")
    assert hold.state_dict() == {}
