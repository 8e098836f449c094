"""Policies that fail in every way there is: the run ends as one that holds."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from leyline import Advance, Cull, Decision, Germinate
from tamiyo import State
from tamiyo.policies import PolicyCatalogue
from tests.reliability.plugin import Faults
from tests.tolaria.growth.test_policies import catalogue as catalogue
from tests.tolaria.growth.test_policies import registered, with_time
from tests.tolaria.plain_loops import adam, assert_same, attach, copy_of, listen, make_host, run
from tests.tolaria.plain_loops import faults as fault_events
from tests.tolaria.plain_loops import one_thread as one_thread

NUM_EPOCHS: Final = 2
Answer = Callable[[State], Any]


def raises(state: State) -> Any:
    raise ZeroDivisionError("a bug")


def runs_out_of_memory(state: State) -> Any:
    raise MemoryError


def recurses(state: State) -> Any:
    return recurses(state)


def leaves(state: State) -> Any:
    sys.exit(1)


def interrupts(state: State) -> Any:
    raise KeyboardInterrupt


def breaks_in(state: State) -> Any:
    state.packet.stage[0] = 7
    return says()(state)


def says(**fields: Any) -> Answer:
    """A decision that is sound but for these fields."""
    return lambda state: Decision(
        **{"epoch": state.packet.epoch, "policy": "", "cause": "", **fields}
    )


def commands(*given: Any) -> Answer:
    """A decision with these commands."""
    return says(commands=given)


CULL: Final = Cull(seed="nobody/0", cause="", embargo_epochs=1)
BAD: Final[dict[str, Answer]] = {
    "raises": raises,
    "runs out of memory": runs_out_of_memory,
    "recurses": recurses,
    "ends its thread": leaves,
    "interrupts": interrupts,
    "returns nothing": lambda state: None,
    "returns a number": lambda state: 3,
    "returns a dict": lambda state: {"epoch": state.packet.epoch},
    "another epoch": says(epoch=99),
    "an epoch in words": says(epoch="1"),
    "says it was late": says(late=True),
    "says it was undone": says(undone="apply"),
    "sets the risk": says(risk_level=4),
    "no cause": says(cause=None),
    "a cause of 20,000 characters": says(cause="x" * 20_000),
    "an unknown seed": commands(CULL),
    "an unknown site": commands(Germinate(seed="a/0", site="a", blueprint="conv", cause="")),
    "an unknown blueprint": commands(
        Germinate(seed="conv/1", site="conv", blueprint="x", cause="")
    ),
    "an illegal stage": commands(Advance(seed="conv/0", to=3, cause="")),
    "a word for a command": commands("cull"),
    "an embargo without end": commands(Cull(seed="conv/0", cause="", embargo_epochs=2**31)),
    "10,000 commands": says(commands=(CULL,) * 10_000),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.fault(13)
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_policy_costs_a_counted_hold(
    kind: str, catalogue: PolicyCatalogue, tmp_path: Path, faults: Faults
) -> None:
    """Whatever it answers, the weights end as with policy "hold", every boundary's fault is told,
    every checkpoint is written, the policy's own count stays where it was, and no thread of it is
    left."""
    ends = []
    for name in ("hold", "theirs"):
        registered(catalogue, BAD[kind])
        model = make_host()
        optimizer = adam(model)
        settings = {"policy": name, "checkpoint": True, "async_checkpoints": False}
        with attach(model, optimizer, tmp_path / name, **settings) as esper:
            events = listen(esper)
            run(model, optimizer, with_time(esper), NUM_EPOCHS)
            esper.checkpoint()
            told = [fault.where for fault in fault_events(events)]
            assert told == (["boundary"] * NUM_EPOCHS if name == "theirs" else [])
            assert not esper.executor.table.names
            assert esper.controller.state_dict()["num_late"] == 0
            ends.append(copy_of(model))
    assert esper.controller.state_dict()["policy"] == {"num_asked": 0}
    assert_same(*ends)
    assert list((tmp_path / "theirs").rglob("manifest.json"))
    assert not [t.name for t in threading.enumerate() if "policy" in t.name]
    faults.injected()
