"""What time or chance decided is on the disk before the next step, and a resumed run repeats it."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from leyline import Decision, Event, Schema, StatePacket, encode
from tamiyo import State
from tests.tolaria.plain_loops import (
    SCHEDULE,
    Scripted,
    adam,
    assert_same,
    attach,
    copy_of,
    faults,
    listen,
    make_host,
    run,
    train_epoch,
    use_policy,
)
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria import Orchestrator
from tolaria.config import load_config
from tolaria.disk.journal import read
from tolaria.growth.policies import build_policy
from tolaria.resume.replay import Replay


def _hold(state: State) -> Decision:
    return Decision(epoch=state.packet.epoch, policy="scripted", cause="nothing")


class _Sluggish:
    """A clock that jumps by a second whenever it is read in the policy's time."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.is_late = False

    def __call__(self) -> float:
        self.now_s += 1.0 if self.is_late else 1e-6
        return self.now_s


def _late_at(esper: Orchestrator, epochs: set[int]) -> None:
    """Have the controller find its policy late, and working, at these epochs."""
    clock = _Sluggish()
    controller = esper.controller
    controller._clock_s = controller._work_clock_s = clock
    decide = controller._policy.decide

    def watched(state: State) -> Decision:
        clock.is_late = state.packet.epoch in epochs
        return decide(state)

    controller._policy.decide = watched  # type: ignore[method-assign] # the seam is the clock


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were made durable."""
    names: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        names.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    return names


@pytest.mark.parametrize("outcome", ["late", "undone", "punctual"])
def test_what_time_or_chance_decided_is_durable_before_the_next_step(
    outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synced: list[str]
) -> None:
    """The journal is synced within the boundary whose decision was late or that did not count; a
    punctual boundary does not wait for the disk."""

    def decide(state: State) -> Decision:
        if outcome == "undone" and state.packet.epoch == 2:
            raise MemoryError
        return _hold(state)

    use_policy(monkeypatch, Scripted(decide))
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run") as esper:
        _late_at(esper, {2} if outcome == "late" else set())
        run(model, optimizer, esper, 1)
        train_epoch(model, optimizer, esper)
        synced.clear()
        report = esper.epoch_boundary({"val_loss": 1.0})
        assert ("journal.bin" in synced) == (outcome != "punctual")
        assert report.decision.late == (outcome == "late")
        assert "journal" in report.outside_ms, "the wait is timed, and outside"
        told = Replay.of(read(tmp_path / "run" / "journal.bin"))
    assert told.late == ((2,) if outcome == "late" else ())
    assert told.undone == ({2: "decide"} if outcome == "undone" else {})


@pytest.fixture
def file_size_limit() -> Iterator[Any]:
    """Sets the largest size of a file of this process, as a full disk would, until the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size_bytes: resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_journal_that_cannot_grow_is_told_once_and_of_every_outcome_it_should_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_size_limit: Any
) -> None:
    """With no room on the disk training goes on; the first boundary that loses events says so, the
    next does not repeat it, and one whose outcome a resume would have to know says it again."""
    use_policy(monkeypatch, Scripted(_hold))
    model = make_host()
    optimizer = adam(model)
    path = tmp_path / "run" / "journal.bin"
    with attach(model, optimizer, tmp_path / "run", seed_checkpoints=False) as esper:
        _late_at(esper, {4})
        run(model, optimizer, esper, 1)
        events = listen(esper)
        file_size_limit(path.stat().st_size + 10)
        counts = []
        for _ in range(3):
            run(model, optimizer, esper, 1)
            counts.append(len(faults(events)))
        assert counts == [1, 1, 2]
        assert {fault.where for fault in faults(events)} == {"journal"}
        assert "journal.bin could not be written" in faults(events)[0].what
        assert "may not end bit-identical" in faults(events)[0].action
        file_size_limit(resource.RLIM_INFINITY)
        run(model, optimizer, esper, 2)
        assert len(faults(events)) == 2
    assert [e.epoch for e in read(path) if isinstance(e, Decision)] == [1, 5, 6]


@pytest.mark.slow
def test_a_boundary_that_failed_by_chance_fails_again_when_it_is_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run in which memory ran out once within a decision, and a second run that is only told so,
    end with the same weights, table, policy and breakers; without being told it differs."""
    ends = []
    for name, runs_out, told in (
        ("lived", True, Replay()),
        ("replayed", False, Replay(undone={3: "decide"})),
        ("untold", False, Replay()),
    ):
        model = make_host()
        optimizer = adam(model)
        schedule = build_policy(load_config({"policy": "schedule", "schedule": SCHEDULE}))

        def decide(state: State, runs_out: bool = runs_out, schedule: Any = schedule) -> Decision:
            if runs_out and state.packet.epoch == 3:
                raise MemoryError
            return schedule.decide(state)

        use_policy(monkeypatch, Scripted(decide))
        with attach(model, optimizer, tmp_path / name) as esper:
            esper.replay(told)
            run(model, optimizer, esper, 6)
            state = esper.executor.state_dict()["table"]
            columns = repr({n: c.tolist() for n, c in state["columns"].items()})
            ends.append((copy_of(model), columns, esper.breakers.state_dict()))
    lived, replayed, untold = ends
    assert_same(replayed[0], lived[0])
    assert replayed[1:] == lived[1:]
    assert untold[1] != lived[1]


class _Wide(nn.Module):
    """A host with room for more than one place, so that the policy chooses."""

    def __init__(self) -> None:
        super().__init__()
        self.host = make_host()

    def forward(self, images: Any) -> Any:
        return self.host(images)


def test_every_decision_can_be_made_again_from_the_journal_alone(tmp_path: Path) -> None:
    """The journal's bytes hold the exact input of every decision: a fresh policy of the same
    settings, given them in order, makes each decision again, bit for bit."""
    model = _Wide()
    optimizer = adam(model)
    settings = {"param_budget": 2_000, "max_candidates": 6, "num_epochs": 12}
    with attach(model, optimizer, tmp_path / "run", **settings) as esper:
        run(model, optimizer, esper, 8)
    events: list[Event] = list(read(tmp_path / "run" / "journal.bin"))
    policy = build_policy(load_config({**settings, "veto": False}))
    schemas: dict[int, Schema] = {}
    packet: StatePacket | None = None
    num_commands = num_made = 0
    for event in events:
        if isinstance(event, Schema):
            schemas[event.schema_id] = event
        elif isinstance(event, StatePacket):
            packet = event
        elif isinstance(event, Decision):
            assert packet is not None
            assert packet.epoch == event.epoch
            again = policy.decide(State(packet, schemas[packet.schema_id]))
            assert encode(again) == encode(event), event.epoch
            num_made += 1
            num_commands += len(event.commands)
    assert num_made == 8
    assert num_commands > 6, "the run grew, so the decisions were not all holds"
