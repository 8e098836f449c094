"""The controller: a late answer is discarded, unless only the machine was busy."""

from __future__ import annotations

import time
from typing import Any

import pytest

import leyline
from leyline import Decision
from tamiyo import Controller, HeuristicPolicy, HoldPolicy, State
from tests.tamiyo.boundaries import boundary, tried

AT = boundary(tried("block1/0", 0.5), epoch=20)
"""A boundary at which the heuristic policy grafts, and remembers the gain."""


class Clocks:
    """The time that passes, and the time that this thread works, in seconds."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.worked_s = 3.0


class Slow(HeuristicPolicy):
    """The heuristic policy on a machine where the n-th answer takes (passing, working) ms."""

    def __init__(self, clocks: Clocks, *answers_ms: tuple[float, float]) -> None:
        super().__init__()
        self.asked = 0
        self._clocks = clocks
        self._answers_ms = answers_ms

    def decide(self, state: State) -> Decision:
        passing_ms, working_ms = self._answers_ms[min(self.asked, len(self._answers_ms) - 1)]
        self.asked += 1
        self._clocks.now_s += passing_ms / 1e3
        self._clocks.worked_s += working_ms / 1e3
        return super().decide(state)


def controlled(*answers_ms: tuple[float, float], **options: Any) -> tuple[Controller, Slow]:
    """A controller and its policy, each of whose answers takes so long."""
    clocks = Clocks()
    policy = Slow(clocks, *answers_ms)
    controller = Controller(
        policy, lambda: clocks.now_s, work_clock_s=lambda: clocks.worked_s, **options
    )
    return controller, policy


PUNCTUAL = HeuristicPolicy().decide(State(*AT))


def test_in_time() -> None:
    """An answer within the deadline is the decision, and what the policy learned is kept."""
    controller, policy = controlled((4.9, 4.9))
    assert leyline.encode(controller.decide(*AT)) == leyline.encode(PUNCTUAL)
    learned = {"first_gain": 0.5, "ranking": [["block1", "conv"]]}
    assert {name: policy.state_dict()[name] for name in learned} == learned
    assert (controller.num_late, policy.asked) == (0, 1)


def test_late() -> None:
    """A late answer is replaced by one without commands that says so, is counted, and leaves the
    policy as it was; it is not asked again.
    """
    controller, policy = controlled((5.1, 5.1))
    before = policy.state_dict()
    decision = controller.decide(*AT)
    assert (decision.commands, decision.scores, decision.late) == ((), (), True)
    assert decision.epoch == 20
    assert decision.policy == "heuristic"
    assert decision.cause == "late decision discarded: took 5.1 ms, limit 5 ms"
    assert policy.state_dict() == before
    assert (controller.num_late, policy.asked) == (1, 1)


def test_the_boundary_after_a_late_one() -> None:
    """After a late answer the policy decides as if it had never been asked."""
    controller, _ = controlled((50.0, 50.0), (1.0, 1.0))
    assert controller.decide(*AT).late
    assert leyline.encode(controller.decide(*AT)) == leyline.encode(PUNCTUAL)
    assert controller.num_late == 1


@pytest.mark.parametrize("num_busy", [1, 2])
def test_a_busy_machine_is_asked_again(num_busy: int) -> None:
    """An answer that was late without the work is asked for again, and the policy learns once."""
    controller, policy = controlled(*[(50.0, 0.2)] * num_busy, (1.0, 0.2))
    assert leyline.encode(controller.decide(*AT)) == leyline.encode(PUNCTUAL)
    assert (controller.num_late, policy.asked) == (0, num_busy + 1)
    punctual = HeuristicPolicy()
    punctual.decide(State(*AT))
    assert policy.state_dict() == punctual.state_dict()


def test_ten_times_at_most() -> None:
    """A machine that stays busy costs three answers, then the boundary holds."""
    controller, policy = controlled((50.0, 0.2))
    before = policy.state_dict()
    assert controller.decide(*AT).late
    assert (controller.num_late, policy.asked) == (1, 10)
    assert policy.state_dict() == before


def test_busy_first_and_slow_then() -> None:
    """A policy that turns out to be slow itself is not asked again."""
    controller, policy = controlled((50.0, 0.2), (50.0, 50.0), (1.0, 1.0))
    assert controller.decide(*AT).late
    assert policy.asked == 2


def test_the_deadline_can_be_set() -> None:
    """The time that the policy has is the one that was given, and the refusal names it."""
    controller, _ = controlled((19.0, 19.0), (21.0, 21.0), deadline_ms=20.0)
    assert not controller.decide(*AT).late
    assert "took 21.0 ms, limit 20 ms" in controller.decide(*AT).cause


def test_held_epochs_are_replayed_as_late() -> None:
    """Where the run that is being resumed held by lateness, this one holds too, without asking;
    elsewhere it decides.
    """
    controller, policy = controlled((1.0, 1.0))
    controller.hold_at(frozenset({20}))
    before = policy.state_dict()
    decision = controller.decide(*AT)
    assert (decision.commands, decision.scores, decision.late) == ((), (), True)
    assert policy.state_dict() == before
    assert (controller.num_late, policy.asked) == (1, 0)
    later = boundary(tried("block1/0", 0.5), epoch=21)
    assert controller.decide(*later).commands


def test_a_resumed_run_decides_as_the_undisturbed_one() -> None:
    """A run with one late answer, and its replay from the start with that epoch held, end with
    the same decisions, the same policy and the same count.
    """
    run = [
        boundary(tried("block1/0", gain), epoch=e) for e, gain in ((20, 0.5), (21, 0.06), (22, 0.1))
    ]
    first, slow = controlled((50.0, 50.0), (1.0, 1.0))
    replay, quick = controlled((1.0, 1.0))
    replay.hold_at(frozenset({20}))
    for at in run:
        lived, replayed = first.decide(*at), replay.decide(*at)
        assert (lived.late, lived.commands, lived.scores) == (
            replayed.late,
            replayed.commands,
            replayed.scores,
        )
    assert replay.state_dict() == first.state_dict()
    assert quick.state_dict() == slow.state_dict()
    assert slow.state_dict()["first_gain"] == pytest.approx(0.06), "not the one that was late"


def test_saved_state() -> None:
    """A controller that goes on from a saved state has the policy's memory and the count."""
    controller, _ = controlled((1.0, 1.0), (50.0, 50.0))
    controller.decide(*AT)
    controller.decide(*AT)
    other, policy = controlled((1.0, 1.0))
    other.load_state_dict(controller.state_dict())
    assert other.num_late == 1
    assert policy.state_dict()["first_gain"] == 0.5
    assert other.state_dict() == controller.state_dict()
    assert other.policy_name == "heuristic"


def test_real_clocks() -> None:
    """With the machine's own clocks, a policy that does nothing is never late by its own fault."""
    controller = Controller(HoldPolicy(), time.monotonic, deadline_ms=60_000)
    assert not controller.decide(*AT).late
    assert controller.state_dict() == {"policy": {}, "num_late": 0}
