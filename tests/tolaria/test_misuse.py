"""Calls that come from the wrong thread or the wrong place: refused, and nothing is changed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from leyline import ConfigError, Event, OwnerError, RunError, SeedReport, StepMetrics
from tests.tolaria.plain_loops import (
    NUM_BATCHES,
    SCHEDULE,
    SITE,
    adam,
    assert_same,
    attach,
    copy_of,
    evaluate,
    faults,
    listen,
    make_host,
    run,
)
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria import Orchestrator

Call = Callable[[Orchestrator], Any]
CALLS: dict[str, Call] = {
    "after_step": lambda esper: esper.after_step(0.5),
    "epoch_boundary": lambda esper: esper.epoch_boundary({"val_loss": 0.5}),
    "roll_back": lambda esper: esper.roll_back("it was asked for"),
    "checkpoint": lambda esper: esper.checkpoint(),
}
calls = pytest.mark.parametrize(
    "call",
    [
        pytest.param(call, id=name, marks=() if name == "after_step" else pytest.mark.slow)
        for name, call in CALLS.items()
    ],
)


def state_of(esper: Orchestrator) -> tuple[Any, ...]:
    table = esper.executor.table
    return (
        esper.epoch,
        esper.step,
        esper.recovery.newest.epoch,
        esper.report(),
        table.rows().tobytes(),
        {name: table.history(name) for name in table.names},
    )


@calls
@pytest.mark.parametrize("settings", [{"schedule": SCHEDULE}, {"policy": "hold"}], ids=str)
def test_another_thread_is_refused_before_anything_is_counted(
    call: Call, settings: dict[str, Any], tmp_path: Path
) -> None:
    """With or without a graft under way; then the owner goes on as if nobody had called."""
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run", **settings) as esper:
        run(model, optimizer, esper, 2)
        before, events = state_of(esper), listen(esper)

        def elsewhere() -> None:
            with pytest.raises(OwnerError, match="nothing was changed"):
                call(esper)

        with ThreadPoolExecutor(1) as pool:
            pool.submit(elsewhere).result()
        assert state_of(esper) == before
        assert not events
        run(model, optimizer, esper, 1)
        assert (esper.epoch, esper.step) == (3, 3 * NUM_BATCHES)


@calls
def test_a_call_from_a_transition_callback_changes_nothing(call: Call, tmp_path: Path) -> None:
    """Each one is told as a fault, and the run ends with the bits of one without the callback."""
    ends = []
    for name in ("alone", "nested"):
        model = make_host()
        optimizer = adam(model)
        with attach(model, optimizer, tmp_path / name / "run", schedule=SCHEDULE) as esper:
            events = listen(esper)
            num_told = 0

            def nested(report: SeedReport, esper: Orchestrator = esper) -> None:
                nonlocal num_told
                num_told += 1
                call(esper)

            if name == "nested":
                esper.on_transition(nested)
            reports = run(model, optimizer, esper, 5)
            told = [event for event in faults(events) if "training loop" in event.what]
            assert len(told) == len(faults(events)) == num_told
            decided = [(report.decision.cause, report.decision.commands) for report in reports]
            rows = esper.executor.table.rows().tobytes()
            ends.append((esper.epoch, esper.step, decided, rows, copy_of(model)))
    assert num_told > 3
    assert ends[0][:-1] == ends[1][:-1]
    assert_same(ends[0][-1], ends[1][-1])


@calls
def test_a_call_from_a_listener_is_refused_and_the_next_step_is_taken(
    call: Call, tmp_path: Path
) -> None:
    """The error reaches the loop; once the listener has gone, steps and boundaries go on."""
    model = make_host()
    with attach(model, adam(model), tmp_path / "run", policy="hold") as esper:

        def nested(event: Event) -> None:
            if isinstance(event, StepMetrics):
                call(esper)

        esper.session.recorder.listeners.append(nested)
        with pytest.raises(RunError, match="training loop"):
            esper.after_step(0.5)
        assert (esper.epoch, esper.step) == (0, 1)
        esper.session.recorder.listeners.remove(nested)
        esper.after_step(0.5)
        esper.epoch_boundary(evaluate(model))
        assert (esper.epoch, esper.step) == (1, 2)


def test_a_loss_of_no_one_number_is_no_step(tmp_path: Path) -> None:
    """It is refused uncounted, and the same call with the right loss is taken."""
    model = make_host()
    with attach(model, adam(model), tmp_path / "run", policy="hold") as esper:
        with pytest.raises(ConfigError):
            esper.after_step(next(model.parameters()).detach())
        assert esper.step == 0
        esper.after_step(0.5)
        assert esper.step == 1


BAD_VALUES: dict[str, Call] = {
    "a complex loss": lambda esper: esper.after_step(torch.tensor(1 + 1j)),
    "a cause that is a number": lambda esper: esper.roll_back(5),
    "a cause that is not text": lambda esper: esper.roll_back("\ud800"),
    "a status that is a number": lambda esper: esper.close(5),
    "metrics in a list": lambda esper: esper.close(metrics=[1.0]),
    "a metric beyond floats": lambda esper: esper.epoch_boundary({"val_loss": 10**400}),
}


@pytest.mark.parametrize("call", BAD_VALUES.values(), ids=BAD_VALUES)
def test_a_value_that_no_message_could_hold_is_refused(call: Call, tmp_path: Path) -> None:
    """Before anything changes; the run goes on, ends in order, and its journal can be read."""
    model = make_host()
    optimizer = adam(model)
    settings = {"policy": "hold", "checkpoint": True}
    with attach(model, optimizer, tmp_path / "run", **settings) as esper:
        run(model, optimizer, esper, 1)
        before = state_of(esper)
        with pytest.raises(ConfigError):
            call(esper)
        assert state_of(esper) == before
        run(model, optimizer, esper, 1)
    again = make_host()
    with attach(again, adam(again), tmp_path / "run", resume=True, **settings) as esper:
        assert esper.epoch == 2
    assert_same(copy_of(again), copy_of(model))


def test_a_rollback_may_be_given_the_error_itself(tmp_path: Path) -> None:
    """Its name and message are the fault's."""
    model = make_host()
    with attach(model, adam(model), tmp_path / "run", policy="hold") as esper:
        events = listen(esper)
        esper.roll_back(torch.OutOfMemoryError("no room"))
    (fault,) = faults(events)
    assert (fault.where, fault.what) == ("request", "OutOfMemoryError: no room")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"schedule": [(2, SITE, "conv"), (3, SITE, "low_rank")]}, "[(3, 'conv', 'low_rank')]"),
        ({"policy": "schedule"}, "empty"),
        ({"schedule": [(2, SITE, "conv")]}, None),
    ],
    ids=str,
)
def test_a_schedule_that_comes_too_late_is_said_once_at_the_start(
    settings: dict[str, Any], named: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning names the entries that no epoch is left for."""
    model = make_host()
    with caplog.at_level(logging.WARNING, "esper"):
        attach(model, adam(model), tmp_path / "run", num_epochs=3, **settings).close()
    said = [record.message for record in caplog.records if "schedule" in record.message]
    assert len(said) == (named is not None)
    assert named is None or named in said[0]
