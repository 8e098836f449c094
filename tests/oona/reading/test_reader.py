"""Reading events back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

import leyline
import oona
from oona.servers.embedded import EmbeddedServer
from oona.streams import entry
from tests.oona.streams.publishing import publish

STEP = leyline.StepMetrics(step=1, loss=0.5)
ENDED = leyline.RunEnded(run_id="run", epoch=1, status="finished", parameters=1, metrics={})
STARTED = leyline.RunStarted(
    run_id="run", epoch=1, num_epochs=1, host_parameters=1, model="m", resumed=True
)


def test_a_server_is_read_run_by_run(tmp_path: Path, oona_url: str) -> None:
    """By its URL alone every run is found and read in order, the earlier run first."""
    for run_id in ("second:name", "first"):
        with oona.Bus.open(tmp_path / run_id, run_id, oona_url) as bus:
            for event in (STEP, ENDED, STEP):
                assert bus.offer(event)
    read = [(envelope.run_id, envelope.sequence) for envelope in oona.read(oona_url)]
    assert read == [(run_id, n) for run_id in ("second:name", "first") for n in (1, 2, 3)]


def test_a_run_directory_is_read_after_its_end(tmp_path: Path) -> None:
    """When the server is gone the outbox still has what it delivered."""
    with oona.Bus.open(tmp_path, "run") as bus:
        assert all(bus.offer(event) for event in (STEP, ENDED) * 20)
        assert bus.flush(10.0)
        during = list(oona.read(tmp_path))
    after = oona.read(str(tmp_path))
    assert list(after) == during
    assert [envelope.sequence for envelope in during] == list(range(1, 41))
    assert after.num_refused == 0


def test_what_the_outbox_has_forgotten_comes_from_the_server(tmp_path: Path, oona_url: str) -> None:
    """A run directory is read from its server and its outbox together, each event once."""
    with oona.Bus.open(tmp_path, "run", oona_url, ring_size_bytes=1024) as bus:
        for _ in range(50):
            assert bus.offer(STEP)
            assert bus.flush(10.0)
    with oona.Bus.open(tmp_path, "run", "unix:///nowhere/bus.sock") as bus:
        assert bus.offer(ENDED)
        assert len(list(oona.read(tmp_path))) < 51
    (tmp_path / "bus.json").write_text(f'{{"url": "{oona_url}", "run_id": "run"}}')
    assert [envelope.sequence for envelope in oona.read(tmp_path)] == list(range(1, 52))


def test_hostile_entries_are_skipped_and_counted(
    tmp_path: Path, oona_url: str, admin: redis.Redis
) -> None:
    """Whatever others write into the streams, real events are read and the rest is counted."""
    with oona.Bus.open(tmp_path, "run", oona_url) as bus:
        assert bus.offer(STEP)
    envelope = next(oona.read(oona_url))
    foreign = leyline.Envelope(
        run_id="other", sequence=9, priority=0, monotonic_ns=0, wall_ns=0, event=STEP
    )
    bodies = {
        "no envelope": leyline.encode(STEP),
        "another run": leyline.encode(foreign),
        "damaged": leyline.encode(envelope)[:-1] + b"\xff",
        "empty": b"",
    }
    stream = "esper:run:report"
    for body in bodies.values():
        packed = entry.pack(leyline.Priority.REPORT, [body])
        admin.xadd(stream, {"num_events": 1, "envelopes": packed.payload})
    admin.xadd(stream, {"num_events": 99, "envelopes": packed.payload})
    admin.xadd(stream, {"num_events": 1, "envelopes": b"\x91" * 5000})
    admin.xadd(stream, {"num_events": 1, "envelopes": bytes(entry.READ_SIZE_BYTES + 1)})
    admin.xadd(stream, {b"\xff\xfe": b"\xff"})
    repeated = entry.pack(leyline.Priority.REPORT, [leyline.encode(envelope)])
    admin.xadd(stream, {"num_events": 1, "envelopes": repeated.payload})
    admin.set("esper:run:decision", "not a stream")
    admin.xadd(b"esper:\xff\xff:metric", {"a": "b"})
    admin.xadd("esper:metric", {"a": "b"})
    reading = oona.read(oona_url)
    assert list(reading) == [envelope]
    assert reading.num_refused == len(bodies) + 4 + 1


def test_following_ends_with_the_run(tmp_path: Path) -> None:
    """A follower gets every event offered while it waits and stops after RunEnded."""
    with oona.Bus.open(tmp_path, "run") as bus:
        bus.offer(STARTED)
        assert bus.flush(10.0)
        following = oona.read(tmp_path, follow=True, timeout_s=30.0)
        assert next(following).event == STARTED
        received: list[int] = []
        follower = threading.Thread(
            target=lambda: received.extend(envelope.sequence for envelope in following)
        )
        follower.start()
        for _ in range(5):
            assert bus.offer(STEP)
            assert bus.flush(10.0)
        bus.offer(ENDED)
        assert bus.flush(10.0)
        follower.join(20.0)
        assert not follower.is_alive()
        assert sorted(received) == [2, 3, 4, 5, 6, 7]


def test_a_follower_by_url_gets_the_last_events_of_a_run_that_ends_at_once(tmp_path: Path) -> None:
    """An embedded server outlives the run until its followers have what was sent last."""
    with oona.Bus.open(tmp_path, "run") as bus:
        bus.offer(STARTED)
        assert bus.flush(10.0)
        following = oona.read(bus.url, follow=True, timeout_s=30.0)
        assert next(following).event == STARTED
        received: list[int] = []
        follower = threading.Thread(
            target=lambda: received.extend(envelope.sequence for envelope in following)
        )
        follower.start()
        for _ in range(5_000):
            assert bus.offer(STEP)
        assert bus.offer(ENDED)
    follower.join(20.0)
    assert sorted(received) == list(range(2, 5_003))


def test_following_goes_on_when_the_run_is_resumed(tmp_path: Path, oona_url: str) -> None:
    """An end that a later start has overtaken does not end the following."""
    with oona.Bus.open(tmp_path, "run", oona_url) as bus:
        for event in (ENDED, STARTED, STEP):
            assert bus.offer(event)
        assert bus.flush(10.0)
        following = oona.read(oona_url, follow=True, timeout_s=30.0)
        assert [next(following).sequence for _ in range(3)] == [1, 2, 3]
        assert bus.offer(ENDED)
        assert [envelope.sequence for envelope in following] == [4]


def test_following_ends_in_time_or_with_the_server(
    tmp_path: Path, oona_server: EmbeddedServer
) -> None:
    """A follower of a run that goes on stops at its timeout, and when the server dies."""
    with oona.Bus.open(tmp_path, "run", oona_server.url) as bus:
        assert bus.offer(STEP)
        assert bus.flush(10.0)
        assert len(list(oona.read(oona_server.url, follow=True, timeout_s=0.3))) == 1
        following = oona.read(oona_server.url, follow=True, timeout_s=60.0)
        assert next(following).event == STEP
        oona_server.stop()
        assert list(following) == []


@pytest.mark.parametrize("by", ["server", "run directory"])
def test_following_goes_on_when_a_lane_is_no_stream_any_more(
    tmp_path: Path, oona_url: str, admin: redis.Redis, by: str
) -> None:
    """A follower leaves out a key that became somebody else's, and reads it when it is a stream
    again, up to the run's end."""
    with oona.Bus.open(tmp_path, "run", oona_url) as bus:
        assert bus.offer(STARTED)
        assert bus.flush(10.0)
        (tmp_path / "bus.json").write_text(f'{{"url": "{oona_url}", "run_id": "run"}}')
        followed = oona_url if by == "server" else tmp_path
        following = oona.read(followed, follow=True, timeout_s=30.0)
        assert next(following).event == STARTED
        admin.set("esper:run:emergency", "no stream")
        admin.set("esper:run:decision", "no stream")
        assert bus.offer(STEP)
        assert next(following).event == STEP
        admin.delete("esper:run:emergency", "esper:run:decision")
        fault = leyline.Fault(epoch=1, step=1, where="", what="", action="")
        assert bus.offer(fault)
        assert next(following).event == fault
        assert bus.offer(ENDED)
        assert [envelope.event for envelope in following] == [ENDED]


def test_why_a_run_s_server_was_not_read_is_told(tmp_path: Path) -> None:
    """A run directory whose server does not answer says so without the server's password; one
    whose own server has ended with its run has nothing to tell."""
    with oona.Bus.open(tmp_path / "own", "run") as bus:
        assert bus.offer(STEP)
        assert bus.flush(10.0)
        assert oona.read(tmp_path / "own").problem == ""
    assert oona.read(tmp_path / "own").problem == ""
    address = tmp_path / "own" / "bus.json"
    address.write_text('{"url": "redis://u:secret@127.0.0.1:1/0", "run_id": "run"}')
    reading = oona.read(tmp_path / "own")
    assert [envelope.event for envelope in reading] == [STEP]
    assert "127.0.0.1:1" in reading.problem
    assert "refused" in reading.problem
    assert "secret" not in reading.problem
    address.write_text('{"url": "ftp://nowhere", "run_id": "run"}')
    assert "ftp" in oona.read(tmp_path / "own").problem


def test_a_server_that_refuses_to_be_read_is_told(
    tmp_path: Path, limited_server: EmbeddedServer, admin: redis.Redis, oona_url: str
) -> None:
    """A run directory whose server answers but lets nothing be read says so."""
    with oona.Bus.open(tmp_path, "run", oona_url) as bus:
        assert bus.offer(STEP)
    admin.acl_setuser("blind", enabled=True, passwords=["+x"], commands=["+ping", "+client"])
    blind = limited_server.url.replace("://", "://blind:x@")
    (tmp_path / "bus.json").write_text(f'{{"url": "{blind}", "run_id": "run"}}')
    reading = oona.read(tmp_path)
    assert [envelope.event for envelope in reading] == [STEP]
    assert "permission" in reading.problem


def test_what_cannot_be_read_is_an_error_that_says_so(tmp_path: Path) -> None:
    """No server, no address, no run directory: each is named."""
    with pytest.raises(leyline.BusError, match=r"unix:///nowhere/bus\.sock"):
        oona.read("unix:///nowhere/bus.sock")
    with pytest.raises(leyline.BusError, match="run directory"):
        oona.read("embedded")
    with pytest.raises(leyline.BusError, match="refused"):
        oona.read("ftp://host")
    with pytest.raises(leyline.RunError, match="is not a run directory"):
        oona.read(tmp_path / "nothing")


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"url": 3}', b"\xff\xfe", b'{"url": "x://", "run_id": ""}']
)
def test_a_damaged_address_leaves_the_outbox(
    tmp_path: Path, content: bytes, servers_of: Callable[[int], list[int]]
) -> None:
    """A bus.json that is not ours is ignored: the outbox is read."""
    with oona.Bus.open(tmp_path, "run", "memory") as bus:
        assert bus.offer(STEP)
    (tmp_path / "bus.json").write_bytes(content)
    assert [envelope.event for envelope in oona.read(tmp_path)] == [STEP]


def test_a_reader_that_begins_after_a_trim_tells_what_is_missing(
    oona_url: str, admin: redis.Redis
) -> None:
    """Reading a stream whose beginning is gone tells the exact sequences that no lane holds."""
    publish(oona_url, [1], event=leyline.Fault(epoch=1, step=1, where="", what="", action=""))
    publish(oona_url, *([n] for n in range(2, 12)))
    admin.xtrim("esper:run:metric", maxlen=3, approximate=False)
    reading = oona.read(oona_url)
    assert [envelope.sequence for envelope in reading] == [1, 9, 10, 11]
    assert [tuple(gap) for gap in reading.gaps] == [("run", 2, 8)]


def test_a_hole_without_a_trim_is_no_gap(oona_url: str) -> None:
    """A sequence that was used up by a dropped event is not told as trimmed."""
    publish(oona_url, [2], [4], [5])
    reading = oona.read(oona_url)
    assert [envelope.sequence for envelope in reading] == [2, 4, 5]
    assert reading.gaps == ()


def test_a_follower_that_a_trim_overtakes_tells_the_exact_gap(
    oona_url: str, admin: redis.Redis
) -> None:
    """Entries that come and go while a follower looks away are told as missing, by sequence."""
    publish(oona_url, [1], [2])
    following = oona.read(oona_url, follow=True, timeout_s=30.0)
    assert [next(following).sequence for _ in range(2)] == [1, 2]
    publish(oona_url, *([n] for n in range(3, 50)))
    admin.xtrim("esper:run:metric", maxlen=2, approximate=False)
    assert [next(following).sequence for _ in range(2)] == [48, 49]
    assert [tuple(gap) for gap in following.gaps] == [("run", 3, 47)]
    following.close()
