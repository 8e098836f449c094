"""Gather: what a policy sees of a run, and under which names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from leyline import (
    Decision,
    Schema,
    StatePacket,
)
from tamiyo import State
from tests.tolaria.plain_loops import (
    SCHEDULE,
    SEED,
    Scripted,
    adam,
    attach,
    faults,
    listen,
    make_host,
    run,
    use_policy,
)
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria.resume import growth_state


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
    use_policy(monkeypatch, Scripted(decide))
    with attach(model, optimizer, tmp_path / "run") as esper:
        events = listen(esper)
        run(model, optimizer, esper, 4)
        assert faults(events) == []
        assert len(esper.executor.table) == 3
    # Asked again where the machine was busy: the same packet twice.
    assert sorted({len(packet.column("stage")) for packet in kept}) == [0, 1, 2, 3]


def test_a_schema_is_sent_once_and_again_when_a_name_is_new(tmp_path: Path) -> None:
    """Packets refer to the last schema that was sent."""
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


def test_a_resumed_run_goes_on_counting_its_schemas(tmp_path: Path) -> None:
    """The first schema after a resume has the id after the last one before it."""
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run", schedule=((2, "conv", "conv"),)) as esper:
        run(model, optimizer, esper, 1)
        state = growth_state.growth_state(esper)
    with attach(model, optimizer, tmp_path / "later", schedule=((2, "conv", "conv"),)) as later:
        growth_state.restore_growth(later, state, rng=False)
        events = listen(later)
        run(model, optimizer, later, 2)
    assert [event.schema_id for event in events if isinstance(event, Schema)] == [2, 3]
    assert [event.schema_id for event in events if isinstance(event, StatePacket)] == [2, 3]
