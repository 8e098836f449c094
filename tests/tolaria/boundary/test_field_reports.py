"""Field reports: what a graft was expected to bring, what it brought, over which time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

import leyline
from leyline import FieldReport, Stage
from tests.tolaria.plain_loops import (
    SCHEDULE,
    SEED,
    TRAIN,
    adam,
    attach,
    listen,
    make_host,
    run,
    train_epoch,
)
from tests.tolaria.plain_loops import one_thread as one_thread


def judged(events: list[Any]) -> list[FieldReport]:
    return [event for event in events if isinstance(event, FieldReport)]


def test_a_graft_that_is_kept_tells_of_its_whole_observation(tmp_path: Path) -> None:
    """The report has the trial's and the counterfactual's figures of the table, the boundaries of
    the graft and of its settling, the steps between, the metrics before and after, and the cause
    of the verdict: each as the events of the run have it."""
    optimizer = adam(model := make_host())
    with attach(model, optimizer, tmp_path / "run", schedule=SCHEDULE) as esper:
        events = listen(esper)
        run(model, optimizer, esper, 8)
        (report,) = judged(events)
        table = esper.executor.table
        assert report.expected_gain == table.get(SEED, "trial_gain")
        assert report.counterfactual_gain == table.get(SEED, "counterfactual_gain")
        assert report.trial_steps == table.get(SEED, "trial_steps") > 0
    moves = {e.now: e for e in events if isinstance(e, leyline.SeedReport)}
    epochs = {e.epoch: e for e in events if isinstance(e, leyline.EpochMetrics)}
    grafted, verdict = moves[Stage.GRAFTING].epoch, moves[Stage.FINE_TUNING]
    assert (report.epoch, report.verdict, report.cause) == (
        verdict.epoch,
        "FINE_TUNING",
        verdict.cause,
    )
    assert report.grafted_epoch == grafted < report.settled_epoch < report.epoch
    assert report.settled_epoch == moves[Stage.STABILIZATION].epoch
    assert report.steps == epochs[report.epoch].step - epochs[grafted].step > 0
    assert report.metrics_before == epochs[grafted].metrics
    assert report.metrics_after == epochs[report.epoch].metrics != report.metrics_before
    assert report.alpha == 1.0


def test_a_graft_that_breaks_is_reported_too(tmp_path: Path) -> None:
    """A seed that is rolled back before it was measured leaves a report: a trial, no
    counterfactual, the steps that it lasted, and why it went."""
    optimizer = adam(model := make_host())
    with attach(model, optimizer, tmp_path / "run", schedule=SCHEDULE) as esper:
        events = listen(esper)
        while esper.executor.table.in_stage(Stage.GRAFTING) != [SEED]:
            run(model, optimizer, esper, 1)
        train_epoch(model, optimizer, esper, batches=TRAIN[:2])
        esper.after_step(math.nan)
        (report,) = judged(events)
    assert (report.seed, report.verdict, report.settled_epoch) == (SEED, "ROLLED_BACK", 0)
    assert not math.isnan(report.expected_gain)
    assert math.isnan(report.counterfactual_gain)
    assert report.steps == 3
    assert "nan" in report.cause
    assert report.metrics_before
    assert report.metrics_after == {}


def test_a_report_of_an_earlier_esper_is_still_read() -> None:
    """One that ends with its verdict, as journals written before have it, decodes with nothing
    known of the rest."""
    whole = FieldReport(
        epoch=4,
        seed="a/0",
        site="a",
        blueprint="norm",
        parameters=8,
        expected_gain=0.5,
        expected_error=0.1,
        counterfactual_gain=0.4,
        counterfactual_error=0.1,
        verdict="FINE_TUNING",
        steps=7,
    )
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(whole))
    old = msgspec.msgpack.decode(msgspec.msgpack.encode(fields[:11]), type=FieldReport)
    assert old == msgspec.structs.replace(whole, steps=0) or math.isnan(old.alpha)
    assert (old.verdict, old.steps, old.cause, old.metrics_after) == ("FINE_TUNING", 0, "", {})
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(fields[:10]), type=FieldReport)
