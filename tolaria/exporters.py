"""What shows a run's numbers to a monitoring system: Prometheus's page, OpenTelemetry's meter."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import Self

from leyline import BusError, Event
from oona.metrics.aggregates import Aggregates
from tolaria.config import EsperConfig

_LOG = logging.getLogger("esper")


class Exporters:
    """The exporters that a config asks for; a listener applies each event once."""

    def __init__(self, config: EsperConfig, run_id: str):
        # Late imports: their libraries cost 0.1 s, which a run without them does not pay.
        aggregates = Aggregates()
        self._appliers = [aggregates.run(run_id).apply]
        self._open = ExitStack()
        self.url: str | None = None
        """Where Prometheus may scrape; None if it may not."""
        if config.metrics_port is not None:
            from oona.metrics.prometheus import PrometheusEndpoint

            try:
                endpoint = PrometheusEndpoint(aggregates, config.metrics_port)
            except BusError as error:
                _LOG.warning("%s; the run goes on without", error)
            else:
                self.url = endpoint.url
                self._open.callback(endpoint.close)
                _LOG.info("metrics for Prometheus: %s", endpoint.url)
        if config.open_telemetry:
            from oona.metrics.open_telemetry import OpenTelemetryMetrics

            shown = OpenTelemetryMetrics(run_id, aggregates.run(run_id))
            self._appliers.append(shown.apply)
            self._open.callback(shown.close)

    @classmethod
    def open(cls, config: EsperConfig, run_id: str) -> Self | None:
        """Open what the config asks for; None if that is nothing.

        A port that is taken is logged as a warning: a run is not to fail for it.
        """
        is_asked = config.metrics_port is not None or config.open_telemetry
        return cls(config, run_id) if is_asked else None

    def apply(self, event: Event) -> None:
        """Fold one event in."""
        for apply in self._appliers:
            apply(event)

    def close(self) -> None:
        """Show nothing any more; takes half a second at most."""
        self._open.close()
