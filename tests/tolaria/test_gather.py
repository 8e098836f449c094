"""Gather: what a policy sees of a run, and under which names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from leyline import (
    Decision,
    Schema,
    StatePacket,
)
from tamiyo import Policy, State
from tests.tolaria.plain_loops import (
    SCHEDULE,
    SEED,
    adam,
    attach,
    faults,
    listen,
    make_host,
    run,
)
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria import resume


class Scripted:
    """A policy that does what the test says, and remembers how often it was asked."""

    name = "scripted"

    def __init__(self, decide: Callable[[State], Any]):
        self._decide = decide
        self.num_asked = 0

    def decide(self, state: State) -> Decision:
        self.num_asked += 1
        decision: Decision = self._decide(state)
        return decision

    def state_dict(self) -> dict[str, Any]:
        return {"num_asked": self.num_asked}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.num_asked = state["num_asked"]


def _use(monkeypatch: pytest.MonkeyPatch, policy: Policy) -> None:
    monkeypatch.setattr("tolaria.orchestrator.build_policy", lambda config: policy)


def test_a_policy_cannot_write_to_the_table_and_its_views_block_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every column is read-only, and one who keeps a packet does not keep the table from
    growing."""
    kept: list[StatePacket] = []
    scheduled: list[Any] = []

    def decide(state: State) -> Decision:
        kept.append(state.packet)
        for name in ("stage", "alpha", "metrics", "trial_gain"):
            column = state.packet.column(name)
            assert column.readonly
            if len(column):
                with pytest.raises(TypeError):
                    column[0] = 1
        decision: Decision = scheduled[0].decide(state)
        return decision

    model = make_host()
    optimizer = adam(model)
    schedule = ((1, "conv", "conv"), (2, "head", "low_rank"), (3, "conv", "low_rank"))
    with attach(model, optimizer, tmp_path / "probe", schedule=schedule) as probe:
        scheduled.append(probe.controller._policy)
    _use(monkeypatch, Scripted(decide))
    with attach(model, optimizer, tmp_path / "run") as esper:
        events = listen(esper)
        run(model, optimizer, esper, 4)
        assert faults(events) == []
        assert len(esper.executor.table) == 3
    assert [len(packet.column("stage")) for packet in kept] == [0, 1, 2, 3]


def test_a_schema_is_sent_once_and_again_when_a_name_is_new(tmp_path: Path) -> None:
    """Packets refer to the last schema that was sent; a resumed run goes on counting."""
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run", schedule=SCHEDULE) as esper:
        events = listen(esper)
        run(model, optimizer, esper, 4)
        schemas = [event for event in events if isinstance(event, Schema)]
        packets = [event for event in events if isinstance(event, StatePacket)]
        assert [schema.schema_id for schema in schemas] == [1, 2]
        assert [packet.schema_id for packet in packets] == [1, 2, 2, 2]
        assert schemas[1].seeds == (SEED,)
        state = resume.growth_state(esper)
    other = make_host()
    with attach(other, adam(other), tmp_path / "other") as later:
        later.gatherer.schema_id = 0
        later.executor.grounds.open(esper.executor.grounds.sites)
        later.gatherer.schema_id = state["schema_id"]
        assert later.gatherer.schema(("val_loss",)).schema_id == 3
