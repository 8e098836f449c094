"""OpenTelemetry: the same numbers under its own names, read when its provider collects."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from oona.metrics.aggregates import RunAggregates
from oona.metrics.catalogue import BOUNDARY_BUCKETS_S, METRICS
from oona.metrics.open_telemetry import OpenTelemetryMetrics
from tests.oona.metrics.courses import COURSE, EPOCH


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def provider(reader: InMemoryMetricReader) -> Iterator[MeterProvider]:
    provider = MeterProvider([reader])
    yield provider
    provider.shutdown()


def collected(reader: InMemoryMetricReader) -> dict[str, dict[tuple[object, ...], object]]:
    """Data points by metric and attribute values, in order of the attributes' names."""
    found: dict[str, dict[tuple[object, ...], object]] = {}
    data = reader.get_metrics_data()
    for resource in data.resource_metrics if data else ():
        for metric in [metric for scope in resource.scope_metrics for metric in scope.metrics]:
            for point in metric.data.data_points:
                values = tuple(value for _, value in sorted((point.attributes or {}).items()))
                found.setdefault(metric.name, {})[values] = point
    return found


def test_every_number_is_observed(reader: InMemoryMetricReader, provider: MeterProvider) -> None:
    """Every metric of the catalogue is there with its run; each value is the aggregates' own at
    the time of the collection; the boundary is a histogram with the same buckets."""
    run = RunAggregates()
    shown = OpenTelemetryMetrics("r", run, provider)
    for event in COURSE:
        run.apply(event)
        shown.apply(event)
    found = collected(reader)
    assert set(found) == {metric.name for metric in METRICS}
    for sample in run.samples():
        names = ("run", *sample.metric.labels)
        values = [value for _, value in sorted(zip(names, ("r", *sample.labels), strict=True))]
        assert found[sample.metric.name][tuple(values)].value == sample.value  # type: ignore[attr-defined]
    point = found["esper.boundary"]["r",]
    assert point.explicit_bounds == BOUNDARY_BUCKETS_S  # type: ignore[attr-defined]
    assert point.bucket_counts == run.boundaries().counts  # type: ignore[attr-defined]


def test_units_and_kinds_are_those_of_the_catalogue(
    reader: InMemoryMetricReader, provider: MeterProvider
) -> None:
    """Counters are monotonic sums, gauges are gauges, and each has its unit and meaning."""
    run = RunAggregates()
    shown = OpenTelemetryMetrics("r", run, provider)
    for event in COURSE:
        run.apply(event)
        shown.apply(event)
    data = reader.get_metrics_data()
    assert data is not None
    kinds = {"Gauge": "gauge", "Sum": "counter", "Histogram": "histogram"}
    (scope,) = data.resource_metrics[0].scope_metrics
    assert (scope.scope.name, dict(scope.scope.attributes or {})) == ("esper", {"esper.run": "r"})
    assert {
        (m.name, kinds[type(m.data).__name__], m.unit, m.description) for m in scope.metrics
    } == {(m.name, m.kind, m.unit, m.help) for m in METRICS}


def test_two_runs_are_apart_and_one_that_ended_is_gone(
    reader: InMemoryMetricReader, provider: MeterProvider
) -> None:
    """Of two runs in one process both are seen, each under its id; a closed one is no more."""
    first, second = RunAggregates(), RunAggregates()
    shown = OpenTelemetryMetrics("first", first, provider)
    OpenTelemetryMetrics("second", second, provider)
    first.apply(EPOCH)
    second.apply(EPOCH)
    assert set(collected(reader)["esper.epoch"]) == {("first",), ("second",)}
    shown.close()
    assert set(collected(reader)["esper.epoch"]) == {("second",)}
