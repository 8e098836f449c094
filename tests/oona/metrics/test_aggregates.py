"""The aggregates: what events add up to, bounded whoever sent them."""

from __future__ import annotations

import math
import threading
import time
from typing import Any

import msgspec
import pytest

import leyline
from oona.metrics import catalogue
from oona.metrics.aggregates import Aggregates, RunAggregates
from tests.oona.metrics.courses import BUS, COURSE, ENDED, EPOCH, alert, breaker, timing


def after(*events: leyline.Event) -> RunAggregates:
    run = RunAggregates()
    for event in events:
        run.apply(event)
    return run


def numbers(run: RunAggregates) -> dict[str, float]:
    return {
        " ".join([sample.metric.name, *sample.labels]): sample.value for sample in run.samples()
    }


def test_a_whole_course() -> None:
    """Every number is what the events say, and there is no other."""
    begun = numbers(RunAggregates())
    assert set(begun) == {
        *("esper.step", "esper.refusals", "esper.outbox.offered", "esper.outbox.delivered"),
        *(f"esper.transitions {stage.name}" for stage in leyline.Stage),
        *(f"esper.outbox.dropped {kind.__name__}" for kind in leyline.PRIORITIES),
    }
    assert not any(begun.values()), "a counter is there before it counts"
    zero = dict.fromkeys((f"esper.seeds {stage.name}" for stage in leyline.Stage), 0.0) | begun
    assert numbers(after(*COURSE)) == zero | {
        "esper.run.active": 1,
        "esper.epoch": 1,
        "esper.step": 45,
        "esper.loss": 0.5,
        "esper.metric val_loss": 0.25,
        "esper.parameters": 108,
        "esper.host.parameters": 100,
        "esper.seeds TRAINING": 3,
        "esper.seeds DORMANT": 5,
        "esper.transitions TRAINING": 2,
        "esper.transitions CANCELLED": 1,
        "esper.refusals": 1,
        "esper.commands hold": 1,
        "esper.commands cull": 2,
        "esper.learning.rate 0": 0.1,
        "esper.learning.rate 1": 0.01,
        "esper.outside race": 1.0,
        "esper.latency.alert apply": 1,
        "esper.faults race": 1,
        "esper.breaker.open bus": 1,
        "esper.risk.level": 2,
        "esper.outbox.offered": 70,
        "esper.outbox.delivered": 60,
        "esper.outbox.dropped StepMetrics": 3,
        "esper.outbox.queued": 7,
        "esper.operation send 50": 0.001,
        "esper.operation send 95": 0.002,
        "esper.operation send 99": 0.004,
    }


def test_what_ends_is_told_so() -> None:
    """A run that ended, a breaker that closed and an alert that is over are 0; a metric that an
    epoch no longer tells is gone."""
    run = after(*COURSE, ENDED, breaker("closed"), alert(resolved=True))
    run.apply(msgspec.structs.replace(EPOCH, metrics={"acc": 0.5}))
    found = numbers(run)
    assert found["esper.run.active"] == found["esper.breaker.open bus"] == 0
    assert found["esper.latency.alert apply"] == 0
    assert [name for name in found if name.startswith("esper.metric")] == ["esper.metric acc"]


def test_boundaries_fall_into_their_buckets() -> None:
    """1.5 and 17.5 ms are each in the first bucket that holds them, 18 ms in the one it bounds, two
    seconds above all, and their sum is exact; what no clock says is left out."""
    run = after(timing(1, 0.5, 0.0), timing(2, 16.5, 0.0), timing(3, 17.0, 0.0))
    run.apply(timing(4, 1999.0, 0.0))
    for nonsense in (math.nan, math.inf, -5.0):
        run.apply(timing(5, nonsense, nonsense))
    buckets = run.boundaries()
    bounds = [*catalogue.BOUNDARY_BUCKETS_S, math.inf]
    filled = {bound: num for bound, num in zip(bounds, buckets.counts, strict=True) if num}
    assert filled == {0.002: 1, 0.018: 2, math.inf: 1}
    assert buckets.sum_s == pytest.approx(0.0015 + 0.0175 + 0.018 + 2.0)
    assert not [name for name in numbers(run) if name.startswith("esper.outside")]


def test_counts_from_anybody_stay_counts() -> None:
    """Drops never go down, and a negative or enormous number becomes one a counter can hold."""
    run = after(BUS, leyline.DropsCounted(dropped_by_type={"StepMetrics": 2, "Fault": 2**64 - 1}))
    run.apply(msgspec.structs.replace(BUS, offered=-5, dropped_by_type={}))
    found = numbers(run)
    assert found["esper.outbox.dropped StepMetrics"] == 3
    assert found["esper.outbox.dropped Fault"] == 2.0**53
    assert found["esper.outbox.offered"] == 0


def test_ten_thousand_seeds_and_runs_are_bounded() -> None:
    """Faults of 10,000 seeds have 64 labels and "other", which has the rest; a name is cut, and one
    that UTF-8 cannot hold is made fit; of 10,000 runs the last 64 are kept."""
    run = RunAggregates()
    where = "x" * 500, "\ud800 lone", *(f"seed block/{n}" for n in range(10_000))
    for name in where:
        run.apply(leyline.Fault(epoch=1, step=1, where=name, what="", action=""))
    faults = [s for s in run.samples() if s.metric is catalogue.FAULTS]
    assert len(faults) == 65
    assert {s.labels[0] for s in faults} >= {"x" * 128, "? lone", "seed block/0", "other"}
    assert sum(s.value for s in faults) == 10_002
    run.apply(msgspec.structs.replace(EPOCH, metrics={f"m{n}": 0.0 for n in range(10_000)}))
    assert sum(s.metric is catalogue.VALUE for s in run.samples()) == 65
    many = Aggregates()
    for number in range(10_000):
        many.run(f"run {number}")
    assert [run_id for run_id, _ in many] == [f"run {number}" for number in range(9_936, 10_000)]
    assert many.run("run 9999") is dict(many)["run 9999"]


class SlowMetrics(dict[str, float]):
    """Metrics whose reading halts in the middle until it is released."""

    def __init__(self, values: dict[str, float]) -> None:
        super().__init__(values)
        self.is_halted, self.released = threading.Event(), threading.Event()

    def items(self) -> Any:
        for number, item in enumerate(super().items()):
            if number == 1:
                self.is_halted.set()
                assert self.released.wait(5.0)
            yield item


def test_no_reader_sees_half_of_an_event() -> None:
    """While one thread is in the midst of an event, a reader in another waits, and then has all."""
    run = after(EPOCH)
    slow = SlowMetrics({"a": 1.0, "b": 2.0})
    seen: list[dict[str, float]] = []
    event = msgspec.structs.replace(EPOCH, metrics=slow)
    writer = threading.Thread(target=run.apply, args=(event,))
    reader = threading.Thread(target=lambda: seen.append(numbers(run)))
    writer.start()
    assert slow.is_halted.wait(5.0)
    reader.start()
    reader.join(0.05)  # one that does not wait has read by now
    slow.released.set()
    writer.join()
    reader.join()
    found = {name: value for name, value in seen[0].items() if name.startswith("esper.metric ")}
    assert found == {"esper.metric a": 1.0, "esper.metric b": 2.0}


def test_a_step_is_folded_in_under_a_microsecond() -> None:
    """The best of nine rounds of 2,000 steps: anything slower would be felt in every step."""
    run = RunAggregates()
    step = leyline.StepMetrics(step=3, loss=0.5)
    rounds = []
    for _ in range(9):
        began = time.perf_counter()
        for _ in range(2_000):
            run.apply(step)
        rounds.append((time.perf_counter() - began) / 2_000)
    assert min(rounds) < 1e-6, f"{min(rounds) * 1e6:.2f} us"
