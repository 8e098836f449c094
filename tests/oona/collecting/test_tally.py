"""What the collector adds up: every event that it has seen, once, whoever wrote it to the store."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import leyline
from oona import Bus
from oona.audit import catch_up
from oona.audit.chain import Chain
from oona.audit.store import open_store
from oona.collecting.collector import Collector
from oona.collecting.service import open_group
from oona.collecting.tally import Tally
from oona.metrics import catalogue
from oona.metrics.aggregates import Aggregates
from oona.metrics.operations import Operations
from oona.servers.embedded import EmbeddedServer
from tests.oona.audit.events import enveloped
from tests.oona.collecting.runs import ENDED, STARTED

FAULT = leyline.Fault(epoch=1, step=1, where="here", what="broken", action="mended")


def num_faults(aggregates: Aggregates, run_id: str = "run") -> float:
    samples = aggregates.run(run_id).samples()
    return sum(sample.value for sample in samples if sample.metric is catalogue.FAULTS)


def test_an_event_counts_once_however_often_it_comes() -> None:
    """Again, late, in another batch, and apart from those of another run."""
    aggregates = Aggregates()
    tally = Tally(aggregates)
    events, others = enveloped([FAULT] * 9), enveloped([FAULT] * 4, run_id="other")
    for batch in (events[5:], events[:7], others, events + others):
        tally.take(batch)
    assert num_faults(aggregates) == 9
    assert num_faults(aggregates, "other") == 4


def test_of_many_runs_as_many_are_remembered_as_are_added_up() -> None:
    """A run that was forgotten begins anew in both, so that its numbers still add up."""
    aggregates = Aggregates()
    tally = Tally(aggregates)
    for number in range(65):
        tally.take(enveloped([FAULT], run_id=f"run {number}"))
    tally.take(enveloped([FAULT], run_id="run 0"))
    assert num_faults(aggregates, "run 0") == 1
    assert len(list(aggregates)) == len(tally._seen) == 64


def test_what_somebody_else_wrote_counts_too(
    oona_server: EmbeddedServer, tmp_path: Path, run_async: Callable[..., Any]
) -> None:
    """`esper events` has written a part of a batch before the collector came to it."""
    with Bus.open(tmp_path, "run", oona_server.url) as bus:
        for event in (STARTED, *[FAULT] * 5):
            assert bus.offer(event)
        assert bus.flush(5.0)
        assert catch_up(tmp_path).num_new == 6
        for event in (*[FAULT] * 5, ENDED):
            assert bus.offer(event)
        assert bus.flush(5.0)
        aggregates = Aggregates()

        async def collect() -> int:
            url = f"sqlite:{tmp_path / 'audit.db'}"
            store = await open_store(url, Operations(), Chain())
            collector = Collector(
                partial(open_group, tmp_path, url),
                store,
                run_dir=tmp_path,
                is_live=lambda: True,
                operations=Operations(),
                aggregates=aggregates,
            )
            await collector.run()
            await store.close()
            return collector.num_events

        assert run_async(collect()) == 6
    assert num_faults(aggregates) == 10
    values = {s.metric: s.value for s in aggregates.run("run").samples()}
    assert values[catalogue.ACTIVE] == 0
