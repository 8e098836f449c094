"""A server that is killed again and again while events are offered."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import redis

import leyline
import oona
from oona.audit.catching_up import catch_up
from tests.oona.faults.evidence import FAULT, arrived, exact, wait_for
from tests.oona.faults.place import Place
from tests.reliability.plugin import Faults

NUM_KILLS = 100
NUM_EVENTS = 10_000
REPORT = leyline.SeedReport(
    epoch=1,
    seed="block2/3",
    site="block2",
    blueprint="low_rank",
    was=0,
    now=1,
    parameters=8,
    alpha=0.0,
    cause="asked",
)
KINDS = (FAULT, REPORT)


def crowd(num: int, chance: random.Random) -> list[leyline.Event]:
    """Metrics, with lifecycle and fault events among them."""
    rare = [chance.random() < 0.1 for _ in range(num)]
    return [
        chance.choice(KINDS) if is_rare else leyline.StepMetrics(step=step, loss=0.5)
        for step, is_rare in enumerate(rare)
    ]


@pytest.mark.slow
@pytest.mark.fault(6)
def test_a_hundred_kills_of_the_server_lose_nothing(tmp_path: Path, faults: Faults) -> None:
    """100 SIGKILLs of the server during 10,000 events: the ledger is exact after each, everything
    is delivered in the end, and every event, so every one of lifecycle and faults, is in the audit
    trail, although no server kept anything on disk."""
    chance = faults.random
    events = crowd(NUM_EVENTS, chance)
    share = NUM_EVENTS // NUM_KILLS
    place = Place(tmp_path)
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    with oona.Bus.open(run_dir, "run", place.url) as bus:
        for start in range(0, NUM_EVENTS, share):
            killed_at = start + chance.randrange(share)
            for number, event in enumerate(events[start : start + share], start):
                if number == killed_at:
                    if chance.random() < 0.5:
                        wait_for(lambda: exact(bus).queued == 0, bus)
                    place.kill()
                    faults.injected()
                assert bus.offer(event)
            exact(bus)
            place.start()
        assert bus.flush(30.0), bus.statistics()
        counts = exact(bus)
        assert counts.offered == counts.delivered == NUM_EVENTS
        assert counts.num_faults == 0
        with redis.Redis.from_url(place.url) as client:
            here = arrived(client)
        assert {n: envelope.event for n, envelope in here.items()} == dict(enumerate(events, 1))
        assert catch_up(run_dir).num_new == NUM_EVENTS
    place.kill()
    with closing(sqlite3.connect(run_dir / "audit.db")) as trail:
        found = dict(trail.execute("SELECT sequence, kind FROM events"))
    for kind, name in ((leyline.Fault, "fault"), (leyline.SeedReport, "seed_report")):
        expected = [n for n, event in enumerate(events, 1) if isinstance(event, kind)]
        assert len(expected) > 300
        assert [n for n, stored in sorted(found.items()) if stored == name] == expected
