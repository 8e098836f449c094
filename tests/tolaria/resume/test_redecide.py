"""Decisions are made again from the journal alone, and what the policy remembers goes back too."""

from __future__ import annotations

import math
import shutil
from array import array
from pathlib import Path
from typing import Any

import msgspec
import pytest

from leyline import Decision, Event, RiskLevel, StatePacket
from tamiyo import State
from tamiyo.risk.allowance import within
from tests.tolaria.plain_loops import (
    SCHEDULE,
    TRAIN,
    Scripted,
    adam,
    attach,
    make_host,
    run,
    train_epoch,
    use_policy,
)
from tests.tolaria.plain_loops import one_thread as one_thread
from tests.tolaria.resume.test_replay import _late_at
from tolaria.config import load_config
from tolaria.disk.journal import read
from tolaria.growth.policies import build_policy
from tolaria.resume.redecide import Redecided, Turn, redecide

SETTINGS: dict[str, Any] = {"param_budget": 2_000, "max_candidates": 6, "num_epochs": 12}

UNTRIED: dict[str, Any] = {"loss_fn": None, "data": None, "example": TRAIN[0][0]}


def journal(path: Path) -> list[Event]:
    return list(read(path / "journal.bin"))


def verdicts(rows: list[Redecided | Turn]) -> dict[int, str]:
    return {row.epoch: row.verdict for row in rows if isinstance(row, Redecided)}


def own_policy(**options: Any) -> Any:
    return build_policy(load_config({**SETTINGS, "veto": False, **options}, environment={}))


@pytest.fixture(scope="module")
def grown(grown_run: Path) -> list[Event]:
    """The journal of a run of eight epochs that grew."""
    return journal(grown_run)


def winners(events: list[Event]) -> dict[int, float]:
    """The gain of each race's winner by the epoch that judged it."""
    decisions = [event for event in events if isinstance(event, Decision)]
    return {d.epoch: score.gain for d in decisions for score in d.scores if score.chosen}


def test_a_run_s_own_policy_decides_the_same(grown: list[Event]) -> None:
    """Every boundary of a run that grew comes out the same in every byte."""
    rows = list(redecide(grown, own_policy()))
    assert verdicts(rows) == dict.fromkeys(range(1, 9), "same")
    assert winners(grown), "it grew"


def test_another_threshold_differs_exactly_where_it_was_decisive(grown: list[Event]) -> None:
    """With more asked than the least winner brought and less than the best, the boundaries that
    grafted what brought too little differ, and no other."""
    gains = winners(grown)
    asked = max(gains.values()) * 2
    rows = list(redecide(grown, own_policy(policy_options={"min_gain": asked}), is_own=False))
    different = {epoch for epoch, verdict in verdicts(rows).items() if verdict == "different"}
    assert different == set(gains)
    below = min(gains.values()) / 2
    rows = list(redecide(grown, own_policy(policy_options={"min_gain": below}), is_own=False))
    assert set(verdicts(rows).values()) == {"same"}


def test_another_state_than_the_run_saw_is_a_difference(grown: list[Event]) -> None:
    """Gains that are a ten-thousandth larger give other scores, found out at their epoch."""
    first = min(winners(grown))
    events: list[Event] = []
    for event in grown:
        if isinstance(event, StatePacket) and event.epoch == first:
            gains = event.column("trial_gain").tolist()
            tampered = memoryview(array("f", [1.0001 * gain for gain in gains]))
            event = msgspec.structs.replace(event, trial_gain=tampered)
        events.append(event)
    found = verdicts(list(redecide(events, own_policy())))
    assert next(epoch for epoch, verdict in found.items() if verdict == "different") == first


def test_what_the_risk_forbade_is_left_out_again(grown: list[Event]) -> None:
    """A race that a policy called at ORANGE, and that was not planted for it, is no difference; at
    GREEN the same decision is one."""
    said = {event.epoch: event for event in grown if isinstance(event, Decision)}
    first = next(decision for decision in said.values() if decision.commands)
    held = msgspec.structs.replace(
        within(RiskLevel.ORANGE, first), risk_level=2, risk_causes=("2 breakers",)
    )
    assert not held.commands
    for level, verdict in ((RiskLevel.ORANGE, "same"), (RiskLevel.GREEN, "different")):
        events: list[Event] = []
        for event in grown:
            if isinstance(event, StatePacket) and event.epoch == first.epoch:
                event = msgspec.structs.replace(event, risk_level=int(level))
            events.append(held if event is first else event)
        heedless = Scripted(lambda state: said[state.packet.epoch])
        found = verdicts(list(redecide(events, heedless)))
        assert found == {**dict.fromkeys(range(1, 9), "same"), first.epoch: verdict}


def test_a_boundary_without_inputs_is_not_compared(grown: list[Event]) -> None:
    """A packet that the journal has lost is said to be missing; what follows is compared again."""
    events = [e for e in grown if not (isinstance(e, StatePacket) and e.epoch == 1)]
    rows = list(redecide(events, own_policy()))
    assert verdicts(rows)[1] == "not recorded"
    assert isinstance(rows[0], Redecided)
    assert rows[0].now is None


class _Counting(Scripted):
    """Grows as a schedule says; its causes tell how often it had been asked."""

    def __init__(self, failing: tuple[int, ...] = ()):
        schedule = build_policy(load_config({"policy": "schedule", "schedule": SCHEDULE}))

        def decide(state: State) -> Decision:
            if state.packet.epoch in failing:
                raise MemoryError
            decided = schedule.decide(state)
            cause = f"asked {self.num_asked} times"
            return Decision(
                epoch=decided.epoch, policy=self.name, cause=cause, commands=decided.commands
            )

        super().__init__(decide)


def test_what_the_policy_remembers_goes_back_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run breaks two epochs after a graft and goes back to it, the policy's own state too; so
    does that of the policy that decides again, and every decision is the same."""
    use_policy(monkeypatch, _Counting())
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run", **UNTRIED) as esper:
        run(model, optimizer, esper, 4)
        esper.after_step(math.nan)
        run(model, optimizer, esper, 2)
    events = journal(tmp_path / "run")
    asked = [event.cause for event in events if isinstance(event, Decision)]
    assert asked[3:] == ["asked 4 times", "asked 3 times", "asked 4 times"]
    rows = list(redecide(events, _Counting()))
    (turn,) = [row for row in rows if isinstance(row, Turn)]
    assert (turn.epoch, turn.to_epoch, turn.is_known) == (4, 2, True)
    assert "nan" in turn.why
    assert set(verdicts(rows).values()) == {"same"}


def test_boundaries_whose_answer_did_not_count_leave_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that failed and one that was late are named, not compared, and what the policy
    remembers is afterwards what it was: all others are the same."""
    use_policy(monkeypatch, _Counting(failing=(2,)))
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run", **UNTRIED) as esper:
        _late_at(esper, {4})
        run(model, optimizer, esper, 6)
    rows = list(redecide(journal(tmp_path / "run"), _Counting(failing=(2,))))
    assert verdicts(rows) == {**dict.fromkeys(range(1, 7), "same"), 2: "undone", 4: "late"}
    assert [row.problem for row in rows if isinstance(row, Redecided) and row.problem] == [
        "MemoryError"
    ]


@pytest.mark.slow
def test_boundaries_that_a_breaker_held_are_no_differences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After three failures in a row the policy is not asked for a while; those are named."""
    use_policy(monkeypatch, _Counting(failing=(2, 3, 4)))
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run", **UNTRIED) as esper:
        run(model, optimizer, esper, 6)
    rows = list(redecide(journal(tmp_path / "run"), _Counting()))
    undone = dict.fromkeys((2, 3, 4), "undone")
    assert verdicts(rows) == {1: "same", **undone, 5: "held", 6: "held"}


@pytest.mark.slow
def test_a_run_that_was_killed_and_resumed_decides_the_same(tmp_path: Path) -> None:
    """What a kill leaves behind goes on from its checkpoint: no boundary differs, those before
    the resume and after it, and the resume is told of."""
    settings = {**SETTINGS, "checkpoint": True, "async_checkpoints": False}
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run", **settings) as esper:
        run(model, optimizer, esper, 3)
        train_epoch(model, optimizer, esper)
        shutil.copytree(tmp_path / "run", tmp_path / "killed")
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "killed", resume=True, **settings) as esper:
        assert esper.epoch == 3
        run(model, optimizer, esper, 3)
    rows = list(redecide(journal(tmp_path / "killed"), own_policy()))
    (turn,) = [row for row in rows if isinstance(row, Turn)]
    assert turn == Turn(epoch=3, to_epoch=3, why="", is_known=True)
    assert verdicts(rows) == dict.fromkeys(range(1, 7), "same")
