"""Breakers: open after three failures in a row, held by the clock they were given, tried once."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tolaria.boundary.breakers import CLOSED, HALF_OPEN, OPEN, Breaker, Breakers, Change


class Clock:
    """Stands where it is put."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _breaker(clock: Clock, told: list[Change], **options: Any) -> Breaker:
    settings: dict[str, Any] = {"hold": 10, "longest_hold": 40, "unit": "s"} | options
    return Breaker("disk", clock=clock, on_change=told.append, **settings)


def _open(breaker: Breaker) -> None:
    for number in range(3):
        breaker.settle(f"failure {number}")


def test_three_failures_in_a_row_open_it_and_each_change_is_told_once() -> None:
    """It opens at the third, is not asked while its time runs, lets one call through, and closes
    when that succeeds; four changes, each with its cause."""
    clock, told = Clock(), list[Change]()
    breaker = _breaker(clock, told)
    for failure in ("a", "b"):
        breaker.settle(failure)
    assert (breaker.state, told) == (CLOSED, [])
    breaker.settle("c")
    assert told == [Change("disk", CLOSED, OPEN, "c", 10, "s")]
    clock.now += 10
    assert (breaker.admits(), breaker.waited) == (False, 10)
    clock.now += 0.5
    assert breaker.admits()
    assert breaker.state == HALF_OPEN
    breaker.settle(None)
    assert breaker.state == CLOSED
    assert [(change.was, change.now) for change in told[1:]] == [
        (OPEN, HALF_OPEN),
        (HALF_OPEN, CLOSED),
    ]
    assert told[-1].hold == 0


def test_a_success_ends_the_row() -> None:
    """Two failures, a success and two failures open nothing."""
    breaker = _breaker(Clock(), told := [])
    for failure in ("a", "b", None, "c", "d"):
        breaker.settle(failure)
    assert (breaker.state, told) == (CLOSED, [])


def test_one_failure_of_the_call_that_was_let_through_opens_it_for_twice_as_long() -> None:
    """The hold doubles up to the longest, and a success puts it back to the first."""
    clock, told = Clock(), list[Change]()
    breaker = _breaker(clock, told)
    _open(breaker)
    for _ in range(3):
        clock.now += breaker.hold + 1
        assert breaker.admits()
        breaker.settle("again")
        assert not breaker.admits()
    assert [change.hold for change in told if change.now == OPEN] == [10, 20, 40, 40]
    clock.now += 41
    assert breaker.admits()
    breaker.settle(None)
    _open(breaker)
    assert told[-1].hold == 10


@pytest.mark.parametrize("num_failures", [0, 2, 3])
@pytest.mark.parametrize("waited", [0, 7, 11])
def test_a_restored_breaker_answers_as_the_saved_one(num_failures: int, waited: float) -> None:
    """Count, state, hold and time already waited come back, under a clock that stands elsewhere,
    and nobody is told."""
    clock, later = Clock(), Clock()
    first = _breaker(clock, [])
    for _ in range(num_failures):
        first.settle("x")
    clock.now += waited
    if waited > 10:
        first.admits()
    later.now = 7.0
    second = _breaker(later, told := [])
    second.load_state_dict(first.state_dict())
    assert told == []
    for outcome, passed in itertools.product(("y", None), (0, 4, 7)):
        clock.now, later.now = clock.now + passed, later.now + passed
        assert first.admits() == second.admits()
        if first.admits():
            first.settle(outcome)
            second.settle(outcome)
        assert first.state_dict() == second.state_dict()


def test_the_breakers_of_a_run_do_not_count_for_one_another() -> None:
    """Three failures of the policy leave executor and checkpoint closed; those that are counted in
    boundaries travel with the run, that of the disk does not."""
    told: list[Change] = []
    breakers = Breakers(lambda: 3, lambda: 0.0, told.append)
    for _ in range(3):
        breakers.policy.settle("x")
        breakers.executor.settle(None)
    assert [breakers.policy.state, breakers.executor.state] == [OPEN, CLOSED]
    assert breakers.checkpoint.state == CLOSED
    assert {change.unit for change in told} == {"boundaries"}
    saved = breakers.state_dict()
    assert "checkpoint" not in saved
    other = Breakers(lambda: 3, lambda: 0.0, told.append)
    other.load_state_dict(saved)
    assert other.state_dict() == saved


def test_the_bus_is_told_of_only_when_it_changes() -> None:
    """The publisher's own state becomes one event for each change of it."""
    told: list[Change] = []
    breakers = Breakers(lambda: 0, lambda: 0.0, told.append)
    for now in (CLOSED, OPEN, OPEN, CLOSED, CLOSED):
        breakers.note_bus(now, "server unreachable")
    assert [(change.name, change.was, change.now) for change in told] == [
        ("bus", CLOSED, OPEN),
        ("bus", OPEN, CLOSED),
    ]
