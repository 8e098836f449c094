"""What the events of runs add up to: plain numbers that any exporter can read at any time."""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final, NamedTuple

import leyline
from leyline import Stage
from oona.metrics import catalogue
from oona.metrics.catalogue import BOUNDARY_BUCKETS_S, Metric

_NUM_RUNS: Final = 64
"""Runs kept; a new one takes the place of the one that was made first."""
_NUM_LABELS: Final = 64
"""Values of one label; further ones count as "other", whoever invents them."""
_LABEL_LENGTH: Final = 128
_OTHER: Final = "other"
_PERCENTILES: Final = ("50", "95", "99")
_LARGEST_COUNT: Final = 2**53

Labels = tuple[str, ...]


class Sample(NamedTuple):
    """One number of one run."""

    metric: Metric
    labels: Labels
    """Values of the metric's labels, in order; the run is not among them."""
    value: float


class Buckets(NamedTuple):
    """How often boundaries took how long."""

    counts: tuple[int, ...]
    """In each bucket of BOUNDARY_BUCKETS_S alone, and in the one above them all."""
    sum_s: float


class RunAggregates:
    """The numbers of one run; one thread applies events, any may read.

    A step costs two assignments; all else happens at boundaries, under a lock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: dict[Metric, dict[Labels, float]] = {
            metric: {} for metric in catalogue.METRICS
        }
        self._step, self._loss = 0, math.nan
        self._counts = [0] * (len(BOUNDARY_BUCKETS_S) + 1)
        self._sum_s = 0.0
        self._begin()

    def _begin(self) -> None:
        """Have counters whose labels are known begin at 0: an increase from nothing is not seen."""
        for metric in (catalogue.REFUSALS, catalogue.OFFERED, catalogue.DELIVERED):
            self._set(metric, 0)
        for kind in leyline.PRIORITIES:
            self._set(catalogue.DROPPED, 0, kind.__name__)
        for stage in Stage:
            self._set(catalogue.TRANSITIONS, 0, stage.name)

    def apply(self, event: leyline.Event) -> None:
        """Fold one event in."""
        if type(event) is leyline.StepMetrics:
            self._step, self._loss = event.step, event.loss
            return
        with self._lock:
            self._apply(event)

    def samples(self) -> list[Sample]:
        """Every number that is known; the histogram of boundaries is in `boundaries`."""
        with self._lock:
            found = [
                Sample(metric, labels, value)
                for metric, values in self._numbers.items()
                for labels, value in values.items()
            ]
        found.append(Sample(catalogue.STEP, (), _count(self._step)))
        if not math.isnan(self._loss):
            found.append(Sample(catalogue.LOSS, (), self._loss))
        return found

    def boundaries(self) -> Buckets:
        """How long the boundaries took."""
        with self._lock:
            return Buckets(tuple(self._counts), self._sum_s)

    def _apply(self, event: leyline.Event) -> None:
        match event:
            case leyline.RunStarted():
                self._set(catalogue.ACTIVE, 1)
                self._set(catalogue.EPOCH, event.epoch)
                self._set(catalogue.HOST_PARAMETERS, event.host_parameters)
            case leyline.RunEnded():
                self._set(catalogue.ACTIVE, 0)
            case leyline.EpochMetrics():
                self._note_epoch(event)
            case leyline.SeedReport():
                if event.refused:
                    self._add(catalogue.REFUSALS, 1)
                elif 0 <= event.now < len(Stage):
                    self._add(catalogue.TRANSITIONS, 1, Stage(event.now).name)
            case leyline.Decision():
                self._set(catalogue.RISK, event.risk_level)
                for kind in [command.__struct_config__.tag for command in event.commands]:
                    self._add(catalogue.COMMANDS, 1, str(kind))
                if not event.commands:
                    self._add(catalogue.COMMANDS, 1, "hold")
            case leyline.LearningRates():
                self._replace(catalogue.RATE, {str(n): rate for n, rate in enumerate(event.host)})
            case leyline.BoundaryTiming():
                self._note_boundary(event)
            case leyline.Fault():
                self._add(catalogue.FAULTS, 1, event.where)
            case leyline.LatencyAlert():
                self._set(catalogue.ALERT, not event.resolved, event.part)
            case leyline.BreakerChange():
                self._set(catalogue.BREAKER, event.now != "closed", event.name)
            case leyline.RiskChanged():
                self._set(catalogue.RISK, event.now)
            case leyline.DropsCounted():
                self._note_drops(event.dropped_by_type)
            case leyline.BusReport():
                self._note_bus(event)

    def _note_epoch(self, event: leyline.EpochMetrics) -> None:
        self._step = event.step
        self._set(catalogue.EPOCH, event.epoch)
        self._set(catalogue.PARAMETERS, event.parameters)
        self._replace(catalogue.VALUE, event.metrics)
        seeds = {stage.name: _count(event.stages.get(stage.name, 0)) for stage in Stage}
        self._replace(catalogue.SEEDS, seeds)

    def _note_boundary(self, event: leyline.BoundaryTiming) -> None:
        took_s = (event.gather_ms + event.decide_ms + event.apply_ms) / 1000
        if math.isfinite(took_s) and took_s >= 0:
            self._counts[bisect_left(BOUNDARY_BUCKETS_S, took_s)] += 1
            self._sum_s += took_s
        for work, took_ms in event.outside_ms.items():
            if math.isfinite(took_ms) and took_ms > 0:
                self._add(catalogue.OUTSIDE, took_ms / 1000, work)

    def _note_drops(self, dropped_by_type: dict[str, int]) -> None:
        for kind, num in dropped_by_type.items():
            known = self._numbers[catalogue.DROPPED].get((kind,), 0)
            self._set(catalogue.DROPPED, max(known, _count(num)), kind)

    def _note_bus(self, event: leyline.BusReport) -> None:
        self._set(catalogue.OFFERED, _count(event.offered))
        self._set(catalogue.DELIVERED, _count(event.delivered))
        self._set(catalogue.QUEUED, _count(event.queued))
        self._note_drops(event.dropped_by_type)
        for operation, took_ms in event.latency_ms.items():
            for percentile, ms in zip(_PERCENTILES, took_ms, strict=True):
                self._set(catalogue.OPERATION, ms / 1000, operation, percentile)

    def _set(self, metric: Metric, value: float, *labels: str) -> None:
        self._numbers[metric][self._admit(metric, labels)] = float(value)

    def _add(self, metric: Metric, value: float, *labels: str) -> None:
        values, admitted = self._numbers[metric], self._admit(metric, labels)
        values[admitted] = values.get(admitted, 0.0) + value

    def _replace(self, metric: Metric, values: dict[str, float]) -> None:
        """Set what is told anew each time, so that what is no longer told goes."""
        self._numbers[metric].clear()
        for label, value in values.items():
            self._set(metric, value, label)

    def _admit(self, metric: Metric, labels: Labels) -> Labels:
        """The labels as they may be kept: short, encodable, and not too many of them."""
        if not labels or labels in self._numbers[metric]:
            return labels
        clean = tuple(label[:_LABEL_LENGTH].encode(errors="replace").decode() for label in labels)
        if clean in self._numbers[metric] or len(self._numbers[metric]) < _NUM_LABELS:
            return clean
        return (_OTHER,) * len(labels)


class Aggregates:
    """The numbers of several runs, each under its run id."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: OrderedDict[str, RunAggregates] = OrderedDict()

    def run(self, run_id: str) -> RunAggregates:
        """The numbers of a run, which are kept from now on; `apply` them its events."""
        run_id = run_id[: leyline.limits.NAME_LENGTH].encode(errors="replace").decode()
        with self._lock:
            known = self._runs.get(run_id)
            if known is None:
                known = self._runs[run_id] = RunAggregates()
                if len(self._runs) > _NUM_RUNS:
                    self._runs.popitem(last=False)
            return known

    def __iter__(self) -> Iterator[tuple[str, RunAggregates]]:
        with self._lock:
            return iter(list(self._runs.items()))


def _count(number: int) -> float:
    """A count that a counter can hold: what anybody may have sent is no further off than that."""
    return float(min(max(number, 0), _LARGEST_COUNT))
