"""A run's numbers for monitoring systems: there when asked, each event once, never in the way."""

from __future__ import annotations

import logging
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client.parser import text_string_to_metric_families

import leyline
from leyline import Stage
from oona.metrics.aggregates import Aggregates
from oona.metrics.prometheus import PrometheusEndpoint
from tests.tolaria.plain_loops import SCHEDULE, adam, attach, copy_of, listen, make_host, run
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria.config import EsperConfig, load_config
from tolaria.lightning.announce import announce
from tolaria.session import Session


def scrape(url: str) -> dict[tuple[str, ...], float]:
    """Every sample by its name and label values but the run's."""
    with urllib.request.urlopen(url, timeout=5.0) as answer:  # noqa: S310 -- our own http URL
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        (s.name, *(v for k, v in sorted(s.labels.items()) if k != "run")): s.value
        for family in families
        for s in family.samples
    }


def test_a_growing_run_can_be_scraped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is scraped in the midst of a run are its very events: steps, loss, seeds by state,
    transitions, boundaries and the bus's ledger; at its end the port is closed."""
    caplog.set_level(logging.INFO, "esper")
    optimizer = adam(model := make_host())
    settings = {"schedule": SCHEDULE, "metrics_port": 0, "telemetry": "memory"}
    with attach(model, optimizer, tmp_path / "run", **settings) as esper:
        assert esper.session.exporters is not None
        url = esper.session.exporters.url
        assert url is not None
        assert f"metrics for Prometheus: {url}" in caplog.messages
        events = listen(esper)
        run(model, optimizer, esper, 5)
        found = scrape(url)
        table = esper.executor.table
        for stage in Stage:
            assert found["esper_seeds", stage.name] == table.num_by_stage().get(stage.name, 0)
        steps = [e for e in events if isinstance(e, leyline.StepMetrics)]
        moves = [e for e in events if isinstance(e, leyline.SeedReport)]
        reports = [e for e in events if isinstance(e, leyline.BusReport)]
        assert (found["esper_step",], found["esper_loss",]) == (steps[-1].step, steps[-1].loss)
        transitions = {k: v for k, v in found.items() if k[0] == "esper_transitions_total"}
        assert sum(transitions.values()) == len(moves) > 3
        assert found["esper_boundary_seconds_count",] == 5
        assert found["esper_outbox_offered_total",] == reports[-1].offered > len(steps)
        assert found["esper_run_active",] == 1
    with pytest.raises(urllib.error.URLError):
        scrape(url)


def test_a_port_that_is_taken_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The run goes on without the page, and the log says which port and what to do."""
    with PrometheusEndpoint(Aggregates(), 0) as other:
        port = int(other.url.rpartition(":")[2].partition("/")[0])
        optimizer = adam(model := make_host())
        settings = {"policy": "hold", "metrics_port": port}
        with attach(model, optimizer, tmp_path / "run", **settings) as esper:
            run(model, optimizer, esper, 1)
            assert esper.report()["epoch"] == 1
    (warning,) = [text for text in caplog.messages if "metrics cannot be served" in text]
    assert f"127.0.0.1:{port}" in warning
    assert warning.endswith("the run goes on without")


def test_an_abandoned_run_lets_its_port_go(tmp_path: Path) -> None:
    """A run that never began serves nothing any more."""
    config = load_config({"run_dir": tmp_path / "run", "telemetry": "off", "metrics_port": 0})
    session = Session.open(config)
    assert session.exporters is not None
    url = session.exporters.url
    assert url is not None
    assert scrape(url)["esper_step",] == 0
    session.abandon()
    with pytest.raises(urllib.error.URLError):
        scrape(url)


def test_open_telemetry_reads_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the provider that the process has set a run shows its instruments, and only until its
    end; the weights are those of a run without."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    monkeypatch.setattr(metrics._internal, "_METER_PROVIDER", provider)
    weights = []
    for name, shown in (("plain", False), ("shown", True)):
        optimizer = adam(model := make_host())
        settings = {"schedule": SCHEDULE, "open_telemetry": shown}
        with attach(model, optimizer, tmp_path / name, **settings) as esper:
            run(model, optimizer, esper, 3)
            found = observed(reader)
        weights.append(copy_of(model))
        assert (found.get("esper.epoch") == 3) == shown
    assert observed(reader).keys() <= {"esper.boundary"}
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])
    provider.shutdown()


def observed(reader: InMemoryMetricReader) -> dict[str, Any]:
    data = reader.get_metrics_data()
    return {
        metric.name: getattr(metric.data.data_points[0], "value", None)
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.data.data_points
    }


def test_settings_that_cannot_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port out of range, and OpenTelemetry where it is not installed, with what to install."""
    with pytest.raises(leyline.ConfigError, match="'metrics_port' is 65536; it must be 0 to 65535"):
        EsperConfig(metrics_port=65_536)
    monkeypatch.setitem(sys.modules, "opentelemetry.metrics", None)
    with pytest.raises(leyline.ConfigError, match=r"pip install 'esper-morphogenesis\[otel\]'"):
        EsperConfig(open_telemetry=True)


def test_who_does_not_ask_pays_nothing(tmp_path: Path) -> None:
    """Without the settings nobody listens, and the exporters' libraries are not imported."""
    session = Session.open(load_config({"run_dir": tmp_path / "run", "telemetry": "off"}))
    assert session.recorder.listeners == []
    session.abandon()
    code = (
        "import sys; from tolaria.config import EsperConfig; from tolaria.exporters import *;"
        "print(Exporters.open(EsperConfig(), 'r'),"
        " {'prometheus_client', 'opentelemetry'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.returncode) == ("None set()", 0), done.stderr


def test_a_lightning_user_is_told_where(caplog: pytest.LogCaptureFixture) -> None:
    """The start of a run names the address at which its numbers can be read, if there is one."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO, logger.name)
    started = leyline.RunStarted(
        run_id="r", epoch=0, num_epochs=1, host_parameters=1, model="m", resumed=False
    )
    for url in ("http://127.0.0.1:1/metrics", None):
        announce(started, report=Path("r.html"), metrics_url=url, num_parameters=lambda: 1)
    logger.removeHandler(caplog.handler)
    told = [message for message in dict.fromkeys(caplog.messages) if "metrics at" in message]
    assert told == ["Esper: metrics at http://127.0.0.1:1/metrics"]
