"""Redis Streams, when the server is short of memory or stingy with rights."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

import leyline
import oona
from oona.streams import entry
from oona.streams.writer import NUM_ENTRIES, RedisTransport


@pytest.mark.slow
def test_a_full_server_gives_up_old_metrics(
    tmp_path: Path, oona_url: str, admin: redis.Redis
) -> None:
    """When the server has no memory left, old metrics go and new events are still delivered."""
    admin.config_set("maxmemory", admin.info("memory")["used_memory"] + 1_500_000)
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
        assert admin.xlen("esper:run:metric") < 300


def test_least_rights_are_enough(tmp_path: Path, oona_url: str, admin: redis.Redis) -> None:
    """A user who may only append to esper:* streams can publish, even without INFO."""
    admin.execute_command(
        *("ACL", "SETUSER", "oona", "on", ">pw", "resetchannels"),
        *("~esper:*", "-@all", "+xadd", "+xlen", "+ping"),
    )
    with oona.Bus.open(tmp_path, "run", oona_url.replace("esper:secret", "oona:pw")) as bus:
        assert bus.offer(leyline.StepMetrics(step=1, loss=0.5))
        assert bus.flush(10.0), bus.statistics()
        assert "pw" not in repr(bus.statistics())
    assert admin.xlen("esper:run:metric") == 1


def test_a_refused_lane_does_not_stop_the_others(
    tmp_path: Path, oona_url: str, admin: redis.Redis
) -> None:
    """A stream whose name is taken by something else is refused; other lanes are delivered."""
    admin.set("esper:run:emergency", "mine")
    with oona.Bus.open(tmp_path, "run", oona_url) as bus:
        assert bus.offer(leyline.Fault(epoch=1, step=1, where="", what="", action=""))
        assert bus.offer(leyline.StepMetrics(step=1, loss=0.5))
        assert not bus.flush(0.3)
        statistics = bus.statistics()
        assert (statistics.delivered, statistics.queued) == (1, 1)
        assert "WRONGTYPE" in statistics.state
        admin.delete("esper:run:emergency")
        assert bus.flush(10.0)


def test_a_transport_reports_another_server_by_its_identity(oona_url: str) -> None:
    """Connecting twice to one server gives one identity; a dead connection does not heal."""
    transport = RedisTransport(oona_url, "run")
    assert transport.connect() == transport.connect() != ""
    transport.close()
    with pytest.raises(oona.ServerError, match="not connected"):
        transport.append([])


def test_old_entries_go_by_the_servers_clock(oona_url: str, admin: redis.Redis) -> None:
    """An entry older than the limit goes when another is appended, whatever our clock says; how
    many are too old is not asked at every append, and a stream outlives its last entry by the
    limit."""
    for age_s in range(500, 0, -1):
        now_ms = int(admin.time()[0]) * 1000
        admin.xadd("esper:run:metric", {"a": "b"}, id=f"{now_ms - 3_600_000 - age_s * 1000}-1")
    for _ in range(20):
        publish_on = RedisTransport(oona_url, "run", max_age_s=3_600.0)
        publish_on.connect()
        for _ in range(20):
            packed = entry.pack(leyline.Priority.METRIC, [b"x"])
            assert publish_on.append([packed]) == [None]
        publish_on.close()
    assert 400 <= admin.xlen("esper:run:metric") < 400 + 101  # a server trims whole nodes of 100
    assert admin.info("commandstats")["cmdstat_xtrim"]["calls"] == 20
    assert 3_590_000 < admin.pttl("esper:run:metric") <= 3_600_000


def test_a_stream_has_about_as_many_entries_as_are_kept(oona_url: str, admin: redis.Redis) -> None:
    """However many entries are appended, the newest 10,000 stay and a few more."""
    transport = RedisTransport(oona_url, "run")
    transport.connect()
    packed = entry.pack(leyline.Priority.METRIC, [b"x"])
    for _ in range(11):
        assert set(transport.append([packed] * 1000)) == {None}
    transport.close()
    assert NUM_ENTRIES <= admin.xlen("esper:run:metric") <= NUM_ENTRIES + 100


def test_each_entry_says_which_events_it_holds(
    tmp_path: Path, oona_url: str, admin: redis.Redis
) -> None:
    """A stream's entry tells types and numbers of its events beside them."""
    with oona.Bus.open(tmp_path, "run", oona_url) as bus:
        for step in range(3):
            assert bus.offer(leyline.StepMetrics(step=step, loss=0.5))
    kinds = [fields[b"kinds"] for _, fields in admin.xrange("esper:run:metric")]
    assert sum(int(kind.removeprefix(b"StepMetrics=")) for kind in kinds) == 3
