"""What a hand-written loop leaves: its end, its checkpoints and its events."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import kasmina
from leyline import BusReport, Event, RunEnded, RunError, StepMetrics
from oona import read as read_bus
from tests.tolaria.plain_loops import (
    NUM_BATCHES,
    SCHEDULE,
    ConvNet,
    adam,
    assert_same,
    attach,
    copy_of,
    faults,
    listen,
    make_host,
    run,
    train_epoch,
)
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria.disk.journal import read
from tolaria.disk.run import RunDirectory


def test_after_close_the_loop_is_told_and_closing_twice_is_fine(tmp_path: Path) -> None:
    """Steps and boundaries of a closed run are errors that name the run; the report stays."""
    model = make_host()
    optimizer = adam(model)
    esper = attach(model, optimizer, tmp_path / "run", policy="hold")
    run(model, optimizer, esper, 1)
    first = esper.close()
    assert esper.close("failed") == first
    for call in (lambda: esper.after_step(0.5), lambda: esper.epoch_boundary({})):
        with pytest.raises(RunError, match=r"run is closed|is closed; attach"):
            call()
    assert esper.report()["status"] == "finished"
    assert esper.report()["epoch"] == 1


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ZeroDivisionError, "failed"),
        (KeyboardInterrupt, "interrupted"),
        (SystemExit, "interrupted"),
    ],
)
def test_a_loop_that_raises_ends_the_run_as_what_it_is(
    error: type[BaseException], status: str, tmp_path: Path
) -> None:
    """The error comes through, the end is on record and the directory is free."""
    model = make_host()
    with pytest.raises(error), attach(model, adam(model), tmp_path / "run", policy="hold"):
        raise error
    ended = [event for event in read(tmp_path / "run" / "journal.bin") if type(event) is RunEnded]
    assert [event.status for event in ended] == [status]
    with RunDirectory.open(tmp_path / "run") as again:
        assert again.locked


def test_a_model_can_be_trained_on_after_its_run_has_ended(tmp_path: Path) -> None:
    """The seeds stay and are trained; the optimizer carries no hook of ours."""
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run", schedule=SCHEDULE) as esper:
        run(model, optimizer, esper, 8)
    before = copy_of(model)
    assert not optimizer._optimizer_step_pre_hooks
    train_epoch(model, optimizer)
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[name]), name


def test_every_boundary_of_a_hand_written_loop_ends_with_a_checkpoint(tmp_path: Path) -> None:
    """It holds the model as it goes on from there, seeds and all, and a fresh host grown from it
    computes the same; its time is told apart from the boundary's."""
    model = make_host()
    optimizer = adam(model)
    settings = {"schedule": SCHEDULE, "checkpoint": True, "keep_checkpoints": 2}
    with attach(model, optimizer, tmp_path / "run", **settings) as esper:
        for epoch in range(1, 5):
            (report,) = run(model, optimizer, esper, 1)
            newest = esper.session.newest_checkpoint()
            assert newest is not None
            assert newest.name == f"step-{epoch * NUM_BATCHES:08d}"
            assert report.outside_ms["checkpoint"] > 0.0
            loaded = kasmina.load(make_host(7), newest)
            assert_same(copy_of(loaded), copy_of(model))
        assert len(list((tmp_path / "run" / "checkpoints" / "active").iterdir())) == 2
    assert all("checkpoint" in b["outside_ms"] for b in esper.report()["boundaries"])


def test_checkpoint_false_writes_none(tmp_path: Path) -> None:
    """The setting turns them off, and no time is told for them."""
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run", policy="hold") as esper:
        (report,) = run(model, optimizer, esper, 1)
    assert "checkpoint" not in report.outside_ms
    assert list((tmp_path / "run" / "checkpoints" / "active").iterdir()) == []


def test_a_checkpoint_that_cannot_be_written_is_a_fault_and_training_goes_on(
    tmp_path: Path,
) -> None:
    """An optimizer that keeps what no checkpoint can hold costs the checkpoints, not the run."""
    model = make_host()
    optimizer = adam(model)
    optimizer.param_groups[0]["odd"] = object()
    with attach(model, optimizer, tmp_path / "run", policy="hold", checkpoint=True) as esper:
        events = listen(esper)
        run(model, optimizer, esper, 2)
    assert [fault.where for fault in faults(events)] == ["checkpoint", "checkpoint"]


def test_the_ledger_of_the_bus_is_the_journal_and_the_steps(tmp_path: Path) -> None:
    """End to end through the bus in memory: every event that was recorded is delivered once, in
    order, and the journal holds the same but for the steps and the bus's own reports."""
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run", schedule=SCHEDULE, telemetry="memory") as esper:
        heard: list[Event] = []
        esper.session.recorder.listeners.append(heard.append)
        run(model, optimizer, esper, 7)
        esper.after_step(math.nan)
    ledger = esper.session.bus.statistics()
    journal = list(read(tmp_path / "run" / "journal.bin"))
    delivered = [envelope.event for envelope in read_bus(tmp_path / "run")]
    steps = [event for event in delivered if isinstance(event, StepMetrics)]
    assert sum(1 + len(event.earlier) for event in steps) == 7 * NUM_BATCHES
    kept = [type(e) for e in delivered if not isinstance(e, StepMetrics | BusReport)]
    assert kept == [type(e) for e in journal]
    assert [e.epoch for e in delivered if isinstance(e, BusReport)] == list(range(1, 8))
    assert (ledger.dropped, ledger.queued) == (0, 0)
    assert ledger.offered == ledger.delivered == len(delivered)
    assert len(heard) == len(delivered) - 1  # all but the start of the run
    assert esper.session.recorder.num_unwritten == 0


def test_the_bus_off_changes_nothing_but_the_bus(tmp_path: Path) -> None:
    """Without telemetry the journal and the report are the same."""
    told = []
    for telemetry in ("off", "memory"):
        model = make_host()
        optimizer = adam(model)
        run_dir = tmp_path / telemetry / "run"
        run_dir.parent.mkdir()
        settings = {"schedule": SCHEDULE, "telemetry": telemetry}
        with attach(model, optimizer, run_dir, **settings) as esper:
            run(model, optimizer, esper, 4)
        report = esper.report()
        del report["boundaries"], report["bus_report"]
        told.append((report, [type(event) for event in read(run_dir / "journal.bin")]))
    assert told[0] == told[1]


@pytest.mark.slow
def test_two_runs_live_in_one_process(tmp_path: Path) -> None:
    """Interleaved epoch by epoch, each ends as it would alone."""

    def start(name: str) -> tuple[ConvNet, Any, Any]:
        model = make_host()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        model.dropout.p = 0.0  # the two would share its random stream
        return model, optimizer, attach(model, optimizer, tmp_path / name, schedule=SCHEDULE)

    alone = start("alone")
    run(*alone, 5)
    pair = start("a"), start("b")
    for _ in range(5):
        for member in pair:
            run(*member, 1)
    for model, _, esper in (alone, *pair):
        esper.close()
        assert_same(copy_of(model), copy_of(alone[0]))
