"""/metrics: standard names and units, what anybody's strings cannot break, and its port."""

from __future__ import annotations

import math
import re
import urllib.error
import urllib.request
from collections.abc import Iterator

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

import leyline
from oona.metrics.aggregates import Aggregates
from oona.metrics.catalogue import METRICS
from oona.metrics.prometheus import AggregatesCollector, PrometheusEndpoint
from tests.oona.metrics.courses import COURSE, EPOCH

BASE_UNITS = ("seconds", "bytes", "ratio")
OTHER_UNITS = ("ms", "us", "ns", "milliseconds", "minutes", "hours", "kb", "mb", "percent")


@pytest.fixture
def aggregates() -> Aggregates:
    found = Aggregates()
    for event in COURSE:
        found.run("r").apply(event)
    return found


@pytest.fixture
def endpoint(aggregates: Aggregates) -> Iterator[PrometheusEndpoint]:
    with PrometheusEndpoint(aggregates, 0) as endpoint:
        yield endpoint


def scrape(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5.0) as answer:  # noqa: S310 -- our own http URL
        content: str = answer.read().decode()
        return content


def written(aggregates: Aggregates) -> str:
    """What a scrape would answer, without a server."""
    registry = CollectorRegistry()
    registry.register(AggregatesCollector(aggregates))
    return generate_latest(registry).decode()


def samples(text: str) -> list[Sample]:
    return [s for family in text_string_to_metric_families(text) for s in family.samples]


def test_every_metric_is_served_under_its_standard_name(endpoint: PrometheusEndpoint) -> None:
    """Prometheus's own parser reads every metric of the catalogue, with its type; each sample has
    the run; the names that were promised are there with their values."""
    text = scrape(endpoint.url)
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert {name: family.type for name, family in families.items()} == {
        metric.prometheus_name: metric.kind for metric in METRICS
    }
    found = {(s.name, *sorted(s.labels.items())): s.value for s in samples(text)}
    run = ("run", "r")
    assert {labels[1] for _, *labels in found for labels in labels if labels[0] == "run"} == {"r"}
    assert found["esper_seeds", run, ("state", "TRAINING")] == 3
    assert found["esper_outbox_dropped_total", run, ("type", "StepMetrics")] == 3
    assert found["esper_outbox_offered_total", run] == 70
    assert found["esper_boundary_seconds_bucket", ("le", "0.002"), run] == 1
    assert found["esper_boundary_seconds_bucket", ("le", "0.018"), run] == 2
    assert found["esper_boundary_seconds_bucket", ("le", "+Inf"), run] == 2
    assert found["esper_boundary_seconds_count", run] == 2
    assert found["esper_boundary_seconds_sum", run] == pytest.approx(0.019)


def test_the_names_keep_prometheus_s_rules(aggregates: Aggregates) -> None:
    """As its linter asks: counters and nothing else end in _total, units are base units at the end
    of a name, there is a help text, no name has capitals, and no label has the metric's name."""
    for family in text_string_to_metric_families(written(aggregates)):
        assert re.fullmatch(r"esper(_[a-z0-9]+)+", family.name)
        assert family.documentation
        parts = family.name.split("_")
        assert not set(parts) & set(OTHER_UNITS), family.name
        assert not set(parts[:-1]) & set(BASE_UNITS), family.name
        assert not set(parts) & {"total", "count", "sum", "bucket", "info"}, family.name
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter")
            assert not set(sample.labels) & {"le", "quantile"} or sample.name.endswith("_bucket")


def test_hostile_strings_are_values_and_nothing_else(aggregates: Aggregates) -> None:
    """Quotes, backslashes, newlines and what looks like a sample stay inside the label they came
    in, also in the run id; and 10,000 seeds of four runs fit into 100 kB."""
    evil = 'x"} 1\nesper_seeds{state="owned"} 99\\n\r\t\u2028'
    aggregates.run(evil).apply(leyline.Fault(epoch=1, step=1, where=evil, what="", action=""))
    for number in range(4):
        run = aggregates.run(f"run {number}")
        metrics = {f"{evil} {n}": math.nan for n in range(1_000)}
        run.apply(msgspec.structs.replace(EPOCH, metrics=metrics))
        for seed in range(10_000):
            run.apply(leyline.Fault(epoch=1, step=1, where=f"s/{seed}", what="", action=""))
    text = written(aggregates)
    assert len(text) < 100_000
    found = samples(text)
    (fault,) = [s for s in found if s.name == "esper_faults_total" and s.labels["run"] == evil]
    assert fault.labels["where"] == evil
    assert "owned" not in {s.labels.get("state") for s in found}


def test_only_this_machine_may_ask(endpoint: PrometheusEndpoint) -> None:
    """The page is served on 127.0.0.1 alone: another address of the same machine refuses."""
    assert endpoint.url.startswith("http://127.0.0.1:")
    with pytest.raises(urllib.error.URLError, match="refused"):
        scrape(endpoint.url.replace("127.0.0.1", "127.0.0.2"))


def test_a_port_in_use_is_refused_by_name(endpoint: PrometheusEndpoint) -> None:
    """The error names the address and what to do; the one that has the port serves on, and after
    its end the port is free again."""
    port = int(endpoint.url.rpartition(":")[2].partition("/")[0])
    with pytest.raises(leyline.BusError, match=rf"127\.0\.0\.1:{port}: .*in use; name another"):
        PrometheusEndpoint(Aggregates(), port)
    assert "esper_seeds" in scrape(endpoint.url)
    endpoint.close()
    with pytest.raises(urllib.error.URLError):
        scrape(endpoint.url)
    PrometheusEndpoint(Aggregates(), port).close()
