"""Asking apart: whatever a policy does, there is a decision or an error, and its state is sound."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

import leyline
from leyline import Cull, Decision, PolicyError
from tamiyo import AskedApart, Controller, HeuristicPolicy, State
from tests.tamiyo.boundaries import boundary, state, tried

AT = boundary(tried("block1/0", 0.5))


class Odd(Decision, frozen=True, tag="decision"):
    """A decision of a class of its own."""


class Counting:
    """A policy that counts its decisions, and does as it is told at each."""

    name: Any = "counting"

    def __init__(self, act: Callable[[State, int], Any] | None = None):
        self.count = 0
        self._act = act

    def decide(self, state: State) -> Any:
        self.count += 1
        answer = self._act(state, self.count) if self._act is not None else None
        return self.hold(state) if answer is None else answer

    def hold(self, state: State) -> Decision:
        return Decision(epoch=state.packet.epoch, policy="x", cause=f"answer {self.count}")

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.count = state["count"]


def attempt(action: Callable[[], Any]) -> Any:
    """As the wall around blueprints does."""
    try:
        return action()
    except Exception as error:
        return error


@contextmanager
def no_streams(epoch: int) -> Iterator[None]:
    yield


def apart(policy: Any, **options: Any) -> AskedApart:
    given: dict[str, Any] = {"attempt": attempt, "isolated": no_streams, "deadline_ms": 60_000.0}
    return AskedApart(policy, "mine", **{**given, **options})


# --- a sound policy ------------------------------------------------------------------------------


def test_a_sound_policy_decides_as_if_asked_directly() -> None:
    """The heuristic asked apart gives the decisions and saves the state that it does directly."""
    direct, asked = HeuristicPolicy(), apart(HeuristicPolicy())
    for epoch, gain in ((20, 0.5), (21, -1.0), (22, 0.1)):
        at = state(tried("block1/0", gain), epoch=epoch)
        expected = direct.decide(at)
        found = asked.decide(at)
        assert found.policy == "mine"
        assert (found.commands, found.cause) == (expected.commands, expected.cause)
        assert repr(found.scores) == repr(expected.scores)
    assert asked.state_dict() == direct.state_dict()


def test_it_is_asked_in_a_daemon_thread_that_ends() -> None:
    """The thread is not the caller's, does not keep the process, and is gone with the answer."""
    seen: list[threading.Thread] = []
    apart(Counting(lambda state, count: seen.append(threading.current_thread()))).decide(state())
    assert seen[0] is not threading.current_thread()
    assert seen[0].daemon
    assert not seen[0].is_alive()


def test_what_it_keeps_of_the_packet_is_its_own() -> None:
    """Views that a policy keeps are of a copy: the table's memory is free to move."""
    kept: list[Any] = []
    memory = bytearray(AT[0].stage)
    packet = leyline.StatePacket(
        **{name: getattr(AT[0], name) for name in AT[0].__struct_fields__ if name != "stage"},
        stage=memoryview(memory),
    )
    asked = apart(Counting(lambda state, count: kept.append(state.packet.column("stage"))))
    asked.decide(State(packet, AT[1]))
    packet.stage.release()
    memory.append(0)  # raises BufferError while a view is out
    assert kept[0].tolist() == [2]


def test_draws_are_apart() -> None:
    """While it decides, the streams are those of the epoch, and the run's are put back."""
    asked_at: list[int] = []

    @contextmanager
    def isolated(epoch: int) -> Iterator[None]:
        asked_at.append(epoch)
        before = random.getstate()
        random.seed(epoch)
        yield
        random.setstate(before)

    drawn: list[float] = []
    asked = apart(Counting(lambda s, c: drawn.append(random.random())), isolated=isolated)  # noqa: S311 - a bad policy
    before = random.getstate()
    for _ in range(2):
        asked.decide(state())
    assert random.getstate() == before
    assert asked_at == [20, 20]
    assert drawn[0] == drawn[1]


# --- a policy that fails -------------------------------------------------------------------------


def fails(state: State, count: int) -> Any:
    raise ZeroDivisionError("a bug")


class Wordless(Exception):
    """Cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError


def fails_wordlessly(state: State, count: int) -> Any:
    raise Wordless


def leaves(state: State, count: int) -> Any:
    sys.exit(3)


def huge(state: State, count: int) -> Any:
    return Decision(
        epoch=20,
        policy="",
        cause="",
        commands=(Cull(seed="block1/0", cause="", embargo_epochs=10**30),),
    )


ANSWERS: dict[str, tuple[Any, str]] = {
    "raises": (fails, "'mine': ZeroDivisionError: a bug"),
    "raises without words": (fails_wordlessly, "Wordless: $"),
    "leaves": (leaves, "ended its thread without an answer"),
    "a dict": (lambda state, count: {"epoch": 20}, "returned a dict, not a Decision"),
    "a number": (lambda state, count: 3, "returned a int"),
    "huge": (huge, "cannot be encoded"),
    "lists": (lambda s, c: Decision(epoch=20, policy="", cause="", commands=[[3]]), "malformed"),  # type: ignore[arg-type]
    "another epoch": (lambda s, c: Decision(epoch=1, policy="", cause=""), "for epoch 1"),
    "late": (lambda s, c: Decision(epoch=20, policy="", cause="", late=True), "'late'"),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("kind", ANSWERS)
def test_an_answer_that_is_none_is_an_error_and_changes_nothing(kind: str) -> None:
    """What was wrong is said, the saved state is that of the last good decision, and the next one
    follows from it, though the policy had counted on.
    """
    act, said = ANSWERS[kind]
    is_bad = threading.Event()
    policy = Counting(lambda state, count: act(state, count) if is_bad.is_set() else None)
    asked = apart(policy)
    assert asked.decide(state()).cause == "answer 1"
    is_bad.set()
    for _ in range(2):
        with pytest.raises(PolicyError, match=said):
            asked.decide(state(tried("block1/0", 0.5)))
        assert asked.state_dict() == {"count": 1}
        assert policy.count == 2
    is_bad.clear()
    assert asked.decide(state()).cause == "answer 2"
    assert asked.state_dict() == {"count": 2}


def test_a_decision_of_a_class_of_its_own_is_read_as_a_decision() -> None:
    """What counts is what its readers will see."""
    asked = apart(Counting(lambda state, count: Odd(epoch=20, policy=3, cause="odd")))  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match="malformed"):
        asked.decide(state())
    sound = apart(Counting(lambda state, count: Odd(epoch=20, policy="", cause="odd")))
    assert type(sound.decide(state())) is Decision


def test_a_name_that_is_no_string_is_not_looked_at() -> None:
    """The name under which it is registered counts."""
    policy = Counting()
    policy.name = 3
    assert apart(policy).decide(state()).policy == "mine"


class Unsaveable(Counting):
    """Saves what no checkpoint keeps, from its second decision on."""

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count if self.count < 2 else {self.count}}


def test_a_state_that_no_checkpoint_keeps_is_refused_where_it_arises() -> None:
    """At the boundary: what is saved meanwhile stays the last good state."""
    asked = apart(Unsaveable())
    asked.decide(state())
    with pytest.raises(PolicyError, match=r"state_dict\(\)\['count'\] is a set"):
        asked.decide(state())
    assert asked.state_dict() == {"count": 1}
    at_once = Unsaveable()
    at_once.count = 2
    with pytest.raises(PolicyError, match="is a set"):
        apart(at_once)


class Unloadable(Counting):
    """Cannot go on from what it saved."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        raise KeyError("count")


def test_a_state_that_cannot_be_loaded_fails_the_next_decision_alone() -> None:
    """Loading raises nothing by itself, and what was saved is not lost by it."""
    asked = apart(Unloadable())
    asked.load_state_dict({"count": 7})
    for _ in range(2):
        with pytest.raises(PolicyError, match="KeyError: 'count'"):
            asked.decide(state())
        assert asked.state_dict() == {"count": 7}


def test_a_loaded_state_is_gone_on_from() -> None:
    """What is saved right after loading is what was loaded."""
    asked = apart(Counting())
    asked.load_state_dict({"count": 7})
    assert asked.state_dict() == {"count": 7}
    assert asked.decide(state()).cause == "answer 8"


def test_what_is_no_policy_is_refused_at_the_start() -> None:
    """The method that is missing is named."""
    with pytest.raises(PolicyError, match=r"'mine' has no method decide\(\)"):
        apart(object())


# --- a policy that hangs -------------------------------------------------------------------------


class Hanging(Counting):
    """Hangs in its second decision until it is let go."""

    def __init__(self) -> None:
        super().__init__(self._hang)
        self.hangs, self.is_free, self.threads = threading.Event(), threading.Event(), []  # type: ignore[var-annotated] # threads

    def _hang(self, state: State, count: int) -> None:
        self.threads.append(threading.current_thread())
        if len(self.threads) == 2:
            self.hangs.set()
            self.is_free.wait(60)


def test_a_hang_is_late_every_boundary_holds_and_it_goes_on_where_it_was() -> None:
    """The limit passes: late. While it hangs: late at once, and nobody is asked. When it has come
    back: its answer is gone, and the next decision follows from the last good state. Through a
    controller each is counted and none is asked for again.
    """
    policy = Hanging()
    waits: list[float] = []

    def wait(busy: threading.Lock, timeout_s: float) -> bool:
        waits.append(timeout_s)
        if len(waits) == 2:
            assert policy.hangs.wait(60)
            return False  # the time is up
        return busy.acquire(timeout=60)

    controller = Controller(
        apart(policy, wait=wait, deadline_ms=5_000.0), lambda: 0.0, deadline_ms=5_000.0
    )
    assert controller.decide(*AT).cause == "answer 1"
    for number, cause in ((1, "no answer within 1,000,000 ms"), (2, "an earlier boundary")):
        decision = controller.decide(*AT)
        assert decision.late
        assert decision.commands == ()
        assert cause in decision.cause
        assert controller.num_late == number
        assert controller.state_dict()["policy"] == {"count": 1}
    assert waits == [1000.0, 1000.0], "the second late one waited for nothing"
    policy.is_free.set()
    policy.threads[1].join(60)
    assert policy.count == 2
    assert controller.decide(*AT).cause == "answer 2"
    assert controller.state_dict() == {"policy": {"count": 2}, "num_late": 2}


def test_it_is_waited_for_as_long_as_was_said() -> None:
    """Where no boundary waits it may work for long, and one that hangs is given up all the same."""
    waits: list[float] = []

    def wait(busy: threading.Lock, timeout_s: float) -> bool:
        waits.append(timeout_s)
        return busy.acquire(timeout=60)

    policy = apart(Counting(), wait=wait, deadline_ms=10_000.0, patience_ms=10_000.0)
    assert policy.decide(State(*AT)).cause == "answer 1"
    assert waits == [10.0]


def test_a_policy_that_works_too_long_is_late_and_asked_once() -> None:
    """The work of its own thread counts, not that of the caller's, and its answer is discarded."""

    def work(state: State, count: int) -> None:
        while sum(range(10_000)) and policy.count == 1 and not _worked_ms(2.0):
            pass

    policy = Counting(work)
    controller = Controller(apart(policy, deadline_ms=1.0), lambda: 0.0, deadline_ms=60_000.0)
    decision = controller.decide(*AT)
    assert decision.late
    assert "worked for" in decision.cause
    assert policy.count == 1
    assert controller.state_dict() == {"policy": {"count": 0}, "num_late": 1}


def _worked_ms(least_ms: float) -> bool:
    """Whether this thread has worked so long."""
    return time.thread_time() * 1e3 > least_ms
