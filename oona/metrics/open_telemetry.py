"""The aggregates of a run as OpenTelemetry instruments, on a MeterProvider that is the user's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

import leyline
from oona.metrics import catalogue
from oona.metrics.aggregates import RunAggregates
from oona.metrics.catalogue import BOUNDARY_BUCKETS_S, METRICS, Metric

_SCOPE: Final = "esper"


class OpenTelemetryMetrics:
    """Shows one run to OpenTelemetry until closed.

    The instruments are observed when the provider collects, so a step costs nothing and an event
    what it costs to fold; the boundary's time alone is recorded, once at each boundary.

    Args:
        run_id: what the data points say their run is.
        aggregates: the run's numbers, which somebody applies its events to.
        provider: where the instruments are made; None: the one that the process has set.
    """

    def __init__(
        self, run_id: str, aggregates: RunAggregates, provider: MeterProvider | None = None
    ):
        self._run_id = run_id
        self._aggregates: RunAggregates | None = aggregates
        # A scope for each run: of two instruments of one name the later would never be asked.
        meter = metrics.get_meter(_SCOPE, meter_provider=provider, attributes={"esper.run": run_id})
        makers: dict[str, Callable[..., Any]] = {
            "counter": meter.create_observable_counter,
            "gauge": meter.create_observable_gauge,
        }
        for metric in METRICS:
            if metric.kind != "histogram":
                observe = [self._observer(metric)]
                makers[metric.kind](metric.name, observe, metric.unit, metric.help)
        boundary = catalogue.BOUNDARY
        self._boundary = meter.create_histogram(
            *(boundary.name, boundary.unit, boundary.help),
            explicit_bucket_boundaries_advisory=BOUNDARY_BUCKETS_S,
        )

    def apply(self, event: leyline.Event) -> None:
        """Record what cannot be observed later."""
        if type(event) is leyline.BoundaryTiming:
            took_s = (event.gather_ms + event.decide_ms + event.apply_ms) / 1000
            self._boundary.record(took_s, {"run": self._run_id})

    def close(self) -> None:
        """Observe nothing any more: an instrument cannot be taken off its provider."""
        self._aggregates = None

    def _observer(self, metric: Metric) -> Callable[[CallbackOptions], Iterator[Observation]]:
        def observe(_: CallbackOptions) -> Iterator[Observation]:
            aggregates = self._aggregates
            for sample in aggregates.samples() if aggregates is not None else ():
                if sample.metric is metric:
                    labels = dict(zip(metric.labels, sample.labels, strict=True))
                    yield Observation(sample.value, {"run": self._run_id, **labels})

        return observe
