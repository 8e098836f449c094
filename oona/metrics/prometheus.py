"""The aggregates as Prometheus reads them, served on the loopback interface when asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Self

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

import leyline
from oona.metrics import catalogue
from oona.metrics.aggregates import Aggregates, Buckets
from oona.metrics.catalogue import BOUNDARY_BUCKETS_S, METRICS, Metric

_ADDRESS: Final = "127.0.0.1"
_FAMILIES: Final[dict[str, type[Any]]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


class AggregatesCollector(Collector):
    """Turns the aggregates into families of samples, anew for each scrape."""

    def __init__(self, aggregates: Aggregates):
        self._aggregates = aggregates

    def collect(self) -> Iterator[Family]:
        """Yield every metric that has a number."""
        families = {metric: _family(metric) for metric in METRICS}
        for run_id, run in self._aggregates:
            for metric, labels, value in run.samples():
                families[metric].add_metric([run_id, *labels], value)
            buckets = run.boundaries()
            families[catalogue.BOUNDARY].add_metric(
                [run_id], buckets=_cumulative(buckets), sum_value=buckets.sum_s
            )
        yield from (family for family in families.values() if family.samples)


class PrometheusEndpoint:
    """Serves /metrics on the loopback interface, from threads of its own, until closed.

    Raises:
        BusError: the port is taken, or may not be used.
    """

    def __init__(self, aggregates: Aggregates, port: int):
        registry = CollectorRegistry()
        registry.register(AggregatesCollector(aggregates))
        try:
            self._server, self._thread = start_http_server(port, _ADDRESS, registry)
        except OSError as error:
            raise leyline.BusError(
                f"metrics cannot be served on {_ADDRESS}:{port}: {error.strerror or error}; "
                "name another port, or 0 for any that is free"
            ) from error
        self.url = f"http://{_ADDRESS}:{self._server.server_port}/metrics"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the port; takes half a second at most."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _family(metric: Metric) -> Any:
    family = _FAMILIES[metric.kind]
    return family(metric.prometheus_name, metric.help, labels=["run", *metric.labels])


def _cumulative(buckets: Buckets) -> list[tuple[str, int]]:
    """Each bucket's upper bound, and how many boundaries were within it."""
    within, total = [], 0
    for bound, num in zip([*map(str, BOUNDARY_BUCKETS_S), "+Inf"], buckets.counts, strict=True):
        total += num
        within.append((bound, total))
    return within
