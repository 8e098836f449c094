"""A network that is slow, cut, silent or in pieces, between the publisher and a real server."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import redis

import oona
from oona.servers.embedded import EmbeddedServer
from tests.oona.faults.evidence import arrived, exact, offer, wait_for
from tests.oona.faults.proxy import PHASES, TOXICS, Proxy, Toxic, url_of
from tests.reliability.plugin import Faults

HARMLESS = ("latency", "bandwidth", "slice")
_HEALED_S = 2.0
_CLOSED_S = 15.0
CASES = [
    pytest.param(
        Toxic(name, phase),
        id=f"{name}-{phase}",
        marks=() if name in ("reset", "slice") else pytest.mark.slow,
    )
    for name in TOXICS
    for phase in PHASES
]


@pytest.mark.parametrize("toxic", CASES)
@pytest.mark.fault(7)
def test_nothing_is_lost_on_the_way(
    tmp_path: Path,
    limited_server: EmbeddedServer,
    admin: redis.Redis,
    toxic: Toxic,
    faults: Faults,
) -> None:
    """Whatever a network does, and whether it spoils connecting, logging in, sending or the
    replies: the ledger is exact, what merely slows it keeps nothing from being delivered, two
    seconds after it has healed everything is there, and what came twice is the same event."""
    with (
        Proxy(limited_server.socket_path) as proxy,
        oona.Bus.open(tmp_path, "run", url_of(proxy)) as bus,
    ):
        offer(bus, 50)
        assert bus.flush(10.0), bus.statistics()
        proxy.toxic = toxic
        is_anew = toxic.phase in ("connect", "login")
        spoilt = proxy.num_connections + (2 if is_anew else 0)
        if is_anew:
            proxy.cut()
        offer(bus, 500)
        if toxic.name in HARMLESS:
            assert bus.flush(10.0), bus.statistics()
        else:
            wait_for(lambda: exact(bus).state.startswith("server unreachable"), bus)
            wait_for(lambda: proxy.num_connections >= spoilt, bus)
            assert exact(bus).queued > 0
        proxy.toxic = None
        offer(bus, 50)
        start_s = time.monotonic()
        assert bus.flush(10.0), bus.statistics()
        assert time.monotonic() - start_s < _HEALED_S
        assert exact(bus).delivered == 600
    assert sorted(arrived(admin)) == list(range(1, 601))
    faults.injected()


@pytest.mark.slow
@pytest.mark.parametrize("name", TOXICS)
@pytest.mark.fault(7)
def test_what_a_network_keeps_back_at_the_end_comes_with_the_next_bus(
    tmp_path: Path, limited_server: EmbeddedServer, admin: redis.Redis, name: str, faults: Faults
) -> None:
    """A bus that is closed on a spoilt network ends in bounded time with an exact ledger, and the
    next one of the same run delivers what was left."""
    with Proxy(limited_server.socket_path) as proxy:
        with oona.Bus.open(tmp_path, "run", url_of(proxy)) as bus:
            offer(bus, 50)
            assert bus.flush(10.0), bus.statistics()
            proxy.toxic = Toxic(name, "send")
            offer(bus, 500)
            start_s = time.monotonic()
        assert time.monotonic() - start_s < _CLOSED_S
        counts = exact(bus)
        assert counts.offered == 550
        assert counts.dropped == 0
        proxy.heal()
        with oona.Bus.open(tmp_path, "run", url_of(proxy)) as again:
            assert again.flush(10.0), again.statistics()
    assert sorted(arrived(admin)) == list(range(1, 551))
    faults.injected()


def test_a_reply_that_is_lost_means_events_twice_under_one_id(
    tmp_path: Path, limited_server: EmbeddedServer, admin: redis.Redis
) -> None:
    """What a server took without its answer coming through is sent again: the stream has it
    twice, readers have it once."""
    with (
        Proxy(limited_server.socket_path) as proxy,
        oona.Bus.open(tmp_path, "run", url_of(proxy)) as bus,
    ):
        assert bus.flush(10.0)
        proxy.toxic = Toxic("reset", "reply")
        offer(bus, 1)
        wait_for(lambda: exact(bus).state.startswith("server unreachable"), bus)
        proxy.toxic = None
        assert bus.flush(10.0)
        assert exact(bus).delivered == 1
    assert admin.xlen("esper:run:emergency") >= 2
    assert sorted(arrived(admin)) == [1]
    assert len(list(oona.read(limited_server.url.replace("://", "://esper:secret@")))) == 1
