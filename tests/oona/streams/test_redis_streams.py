"""Redis Streams, when the server is short of memory or stingy with rights."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

import leyline
import oona
from oona.streams.redis_streams import RedisTransport


def test_a_full_server_gives_up_old_metrics(tmp_path: Path, oona_url: str) -> None:
    """When the server has no memory left, old metrics go and new events are still delivered."""
    client = redis.Redis.from_url(oona_url)
    client.config_set("maxmemory", client.info("memory")["used_memory"] + 1_500_000)
    large = leyline.EpochMetrics(
        epoch=1, num_epochs=2, step=9, metrics={"x" * 20_000: 1.0}, parameters=3, stages={}
    )
    with oona.Bus.open(tmp_path, "run", oona_url) as bus:
        for step in range(300):
            assert bus.offer(leyline.StepMetrics(step=step, loss=0.5))
            assert bus.flush(10.0)
        for _ in range(200):
            assert bus.offer(large)
            assert bus.flush(10.0)
        statistics = bus.statistics()
        assert statistics.delivered == statistics.offered == 500
        assert client.xlen("esper:run:metric") < 300
    client.close()


def test_least_rights_are_enough(tmp_path: Path, oona_url: str) -> None:
    """A user who may only append to esper:* streams can publish, even without INFO."""
    client = redis.Redis.from_url(oona_url)
    client.execute_command(
        *("ACL", "SETUSER", "oona", "on", ">pw", "resetchannels"),
        *("~esper:*", "-@all", "+xadd", "+xlen", "+ping"),
    )
    with oona.Bus.open(tmp_path, "run", oona_url.replace("://", "://oona:pw@")) as bus:
        assert bus.offer(leyline.StepMetrics(step=1, loss=0.5))
        assert bus.flush(10.0), bus.statistics()
        assert "pw" not in repr(bus.statistics())
    assert client.xlen("esper:run:metric") == 1
    client.close()


def test_a_refused_lane_does_not_stop_the_others(tmp_path: Path, oona_url: str) -> None:
    """A stream whose name is taken by something else is refused; other lanes are delivered."""
    client = redis.Redis.from_url(oona_url)
    client.set("esper:run:emergency", "mine")
    with oona.Bus.open(tmp_path, "run", oona_url) as bus:
        assert bus.offer(leyline.Fault(epoch=1, step=1, where="", what="", action=""))
        assert bus.offer(leyline.StepMetrics(step=1, loss=0.5))
        assert not bus.flush(0.3)
        statistics = bus.statistics()
        assert (statistics.delivered, statistics.queued) == (1, 1)
        assert "WRONGTYPE" in statistics.state
        client.delete("esper:run:emergency")
        assert bus.flush(10.0)
    client.close()


def test_a_transport_reports_another_server_by_its_identity(oona_url: str) -> None:
    """Connecting twice to one server gives one identity; a dead connection does not heal."""
    transport = RedisTransport(oona_url, "run")
    assert transport.connect() == transport.connect() != ""
    transport.close()
    with pytest.raises(oona.ServerError, match="not connected"):
        transport.append([])
