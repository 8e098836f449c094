"""Consumer groups on a real server, as the user with the least rights."""

from __future__ import annotations

import itertools

import pytest
import redis

import leyline
from leyline import Priority
from oona.streams import entry
from oona.streams.groups import ConsumerGroup, Delivery
from oona.streams.names import dead_letters
from tests.oona.streams.publishing import body, publish

FAULT = leyline.Fault(epoch=1, step=1, where="", what="", action="")


def sequences(deliveries: list[Delivery]) -> list[int]:
    return [envelope.sequence for delivery in deliveries for envelope in delivery.envelopes]


def test_consumers_share_the_entries_and_take_over_those_of_the_dead(oona_url: str) -> None:
    """No two consumers get one entry; what a consumer that died had not acknowledged comes to who
    claims it, with the same event ids, once it is idle long enough and not before."""
    publish(oona_url, *([n] for n in range(1, 65)))
    dying = ConsumerGroup(oona_url, "group", "dying", run_id="run", idle_ms=0)
    heir = ConsumerGroup(oona_url, "group", "heir", run_id="run", idle_ms=0)
    first, second = dying.read(5.0), heir.read(5.0)
    assert sorted(sequences(first) + sequences(second)) == list(range(1, 65))
    assert first
    assert second
    dying.acknowledge(first[:5])
    heir.acknowledge(second)
    dying.close()
    patient = ConsumerGroup(oona_url, "group", "patient", run_id="run", idle_ms=3_600_000)
    assert patient.claim() == []
    taken = heir.claim()
    assert sequences(taken) == sequences(first[5:])
    heir.acknowledge(taken)
    assert heir.claim() == heir.read(0.01) == []
    heir.close()
    patient.close()


def test_what_is_delivered_too_often_becomes_a_dead_letter(
    oona_url: str, admin: redis.Redis
) -> None:
    """After as many deliveries as allowed an entry goes to the run's dead letters with the reason,
    its stream and its id, is not delivered again, and others are."""
    publish(oona_url, [1, 2], [3])
    group = ConsumerGroup(oona_url, "g", "c", run_id="run", max_deliveries=3, idle_ms=0)
    poison, good = group.read(5.0)
    group.acknowledge([good])
    for _ in range(2):
        assert sequences(group.claim()) == [1, 2]
    assert group.claim() == []
    assert group.num_dead == 1
    assert admin.pttl(dead_letters("run")) > 0
    ((_, letter),) = admin.xrange(dead_letters("run"))
    assert letter[b"reason"].startswith(b"delivered 3 times to group g and never acknowledged")
    assert (letter[b"stream"], letter[b"id"]) == (b"esper:run:metric", poison.id)
    assert entry.unpack(letter[b"num_events"], letter[b"envelopes"]) == [body(1), body(2)]
    assert admin.xpending("esper:run:metric", "g")["pending"] == 0
    assert group.claim() == []
    group.close()


def test_an_event_comes_once_but_is_never_lost(oona_url: str) -> None:
    """An event that two entries hold comes with the first alone; it comes again for as long as
    that one is not acknowledged, and never after."""
    publish(oona_url, [1, 2], [2, 3])
    group = ConsumerGroup(oona_url, "g", "c", run_id="run", idle_ms=0)
    first, second = group.read(5.0)
    assert (sequences([first]), sequences([second])) == ([1, 2], [3])
    group.acknowledge([second])
    again = group.claim()
    assert sequences(again) == [1, 2]
    group.acknowledge(again)
    publish(oona_url, [1, 2, 3, 4])
    assert sequences(group.read(5.0)) == [4]
    group.close()


def test_what_was_known_before_is_not_delivered_again(oona_url: str) -> None:
    """A consumer that names the sequences it has gets the others alone."""
    publish(oona_url, range(1, 10))
    group = ConsumerGroup(oona_url, "g", "c", run_id="run", seen={"run": [(1, 3), (5, 8)]})
    assert sequences(group.read(5.0)) == [4, 9]
    group.close()


def test_hostile_entries_are_refused_counted_and_done_with(
    oona_url: str, admin: redis.Redis
) -> None:
    """Whatever others write into a stream, it is delivered empty, counted, and can be
    acknowledged; real events among it arrive."""
    bad = entry.pack(Priority.METRIC, [body(1)[:-1] + b"\xff", body(2, run_id="other"), body(3)])
    admin.xadd("esper:run:metric", {"num_events": 3, "envelopes": bad.payload})
    admin.xadd("esper:run:metric", {"num_events": 1, "envelopes": b"\x91" * 5000})
    admin.xadd("esper:run:metric", {b"\xff": b"\xff"})
    admin.set("esper:run:decision", "not a stream")
    group = ConsumerGroup(oona_url, "g", "c", run_id="run")
    deliveries = group.read(5.0)
    assert [sequences([delivery]) for delivery in deliveries] == [[3], [], []]
    assert group.num_refused == 4
    assert deliveries[1].stored.payload == b"\x91" * 5000
    group.acknowledge(deliveries)
    assert admin.xpending("esper:run:metric", "g")["pending"] == 0
    group.close()


def test_entries_of_other_kinds_are_passed_over_undecoded(
    oona_url: str, admin: redis.Redis
) -> None:
    """Who wants some kinds alone gets the entries that hold one of them or do not say; the
    others are acknowledged without being decoded."""
    publish(oona_url, [1])
    publish(oona_url, [2], event=FAULT)
    admin.xadd("esper:run:metric", {"num_events": 1, "kinds": "StepMetrics=1", "envelopes": b"?"})
    admin.xadd("esper:run:report", {"num_events": 1, "envelopes": b"?"})
    group = ConsumerGroup(oona_url, "g", "c", run_id="run", kinds=["Fault", "RunEnded"])
    deliveries = group.read(5.0)
    assert {delivery.stream for delivery in deliveries} == {
        b"esper:run:report",
        b"esper:run:emergency",
    }
    assert sequences(deliveries) == [2]
    assert group.num_refused == 1
    assert admin.xpending("esper:run:metric", "g")["pending"] == 0
    group.close()


def test_the_exact_gap_is_told_when_a_trim_overtakes_the_group(
    oona_url: str, admin: redis.Redis
) -> None:
    """Of entries that were trimmed before they were read the very sequences are told; those that
    another lane brings are none, nor is a hole that no trim has made."""
    group = ConsumerGroup(oona_url, "g", "c", run_id="run")
    for num in (1, 2, 4):  # 3 was dropped, or is in another lane
        publish(oona_url, [num])
        group.acknowledge(group.read(5.0))
    assert group.gaps == ()
    publish(oona_url, *([n] for n in range(5, 15) if n != 7))
    publish(oona_url, [7], event=FAULT)
    admin.xtrim("esper:run:metric", maxlen=2, approximate=False)
    group.acknowledge(group.read(5.0))
    assert [tuple(gap) for gap in group.gaps] == [("run", 5, 6), ("run", 8, 12)]
    assert sum(gap.num_events for gap in group.gaps) == 7
    group.close()


@pytest.mark.parametrize(
    ("seen", "gaps"), [({"run": [(1, 3)]}, [("run", 4, 7)]), (None, [])], ids=["told", "not told"]
)
def test_a_consumer_that_begins_again_knows_what_it_missed(
    oona_url: str,
    admin: redis.Redis,
    seen: dict[str, list[tuple[int, int]]] | None,
    gaps: list[tuple[str, int, int]],
) -> None:
    """Told what it has seen, a consumer that was away during a trim tells the gap; not told, it
    tells none rather than a wrong one."""
    group = ConsumerGroup(oona_url, "g", "c", run_id="run")
    publish(oona_url, [1], [2], [3])
    group.acknowledge(group.read(5.0))
    group.close()
    publish(oona_url, *([n] for n in range(4, 10)))
    admin.xtrim("esper:run:metric", maxlen=2, approximate=False)
    again = ConsumerGroup(oona_url, "g", "c", run_id="run", seen=seen)
    left = again.read(5.0)
    assert sequences(left) == [8, 9]
    again.acknowledge(left)
    assert [tuple(gap) for gap in again.gaps] == gaps
    again.close()


def test_what_was_trimmed_while_a_dead_consumer_had_it_is_a_gap(
    oona_url: str, admin: redis.Redis
) -> None:
    """An entry that goes between its delivery and its claim is told as missing."""
    dying = ConsumerGroup(oona_url, "g", "dying", run_id="run", idle_ms=0)
    heir = ConsumerGroup(oona_url, "g", "heir", run_id="run", idle_ms=0)
    publish(oona_url, [1, 2])
    assert sequences(dying.read(5.0)) == [1, 2]
    publish(oona_url, [3])
    heir.acknowledge(heir.read(5.0))
    admin.xtrim("esper:run:metric", maxlen=1, approximate=False)
    assert heir.claim() == []
    assert [tuple(gap) for gap in heir.gaps] == [("run", 1, 2)]
    dying.close()
    heir.close()


def test_a_group_outlives_its_streams(oona_url: str, admin: redis.Redis) -> None:
    """When the streams are gone, as on a server that was started again, the group is made anew."""
    group = ConsumerGroup(oona_url, "g", "c", run_id="run")
    publish(oona_url, [1])
    group.acknowledge(group.read(5.0))
    admin.flushall()
    assert group.claim() == []
    publish(oona_url, [1, 2])
    assert sequences(group.read(5.0)) == [2]
    assert admin.pttl("esper:run:decision") > 0, "a lane that stays empty goes in the end"
    group.close()


def test_a_lane_that_is_no_stream_any_more_is_left_out(oona_url: str, admin: redis.Redis) -> None:
    """When a lane's key becomes somebody else's, reading, claiming and acknowledging the others
    goes on; when it is a stream again, it is read again."""
    clock = itertools.count().__next__  # every look at it is a second later
    group = ConsumerGroup(oona_url, "g", "c", run_id="run", idle_ms=0, clock=clock)
    publish(oona_url, [1])
    publish(oona_url, [2], event=FAULT)
    had = group.read(5.0)
    assert sorted(sequences(had)) == [1, 2]
    admin.set("esper:run:metric", "no stream")
    assert sequences(group.claim()) == [2]
    group.acknowledge(had)
    assert group.claim() == []
    publish(oona_url, [3], event=FAULT)
    assert sequences(group.read(5.0)) == [3]
    admin.delete("esper:run:metric")
    publish(oona_url, [4])
    assert sequences(group.read(5.0)) == [4]
    group.close()


def test_a_lane_may_become_somebody_else_s_while_it_is_read(
    oona_url: str, admin: redis.Redis
) -> None:
    """The read that meets it first brings what the other lanes have."""
    group = ConsumerGroup(oona_url, "g", "c", run_id="run")
    assert group.read(0.0) == []
    admin.set("esper:run:emergency", "no stream")
    publish(oona_url, [1])
    assert sequences(group.read(5.0)) == [1]
    group.close()


def test_dead_letters_wait_for_their_key(oona_url: str, admin: redis.Redis) -> None:
    """While the key for dead letters is somebody else's, an entry that should be one is neither
    delivered nor lost, and others are claimed; then it is buried."""
    publish(oona_url, [1], [2])
    group = ConsumerGroup(oona_url, "g", "c", run_id="run", max_deliveries=1, idle_ms=0)
    group.read(5.0)
    admin.set(dead_letters("run"), "no stream")
    publish(oona_url, [3])
    assert sequences(group.read(5.0)) == [3]
    admin.xclaim("esper:run:metric", "g", "c", 0, group_ids(admin)[2:], retrycount=0)
    assert sequences(group.claim()) == [3]
    assert (group.num_dead, admin.xpending("esper:run:metric", "g")["pending"]) == (0, 3)
    admin.delete(dead_letters("run"))
    group.claim()
    assert group.num_dead == admin.xlen(dead_letters("run")) == 3
    group.close()


def group_ids(admin: redis.Redis) -> list[bytes]:
    return [entry_id for entry_id, _ in admin.xrange("esper:run:metric")]


def test_what_went_with_its_stream_comes_with_the_next(oona_url: str, admin: redis.Redis) -> None:
    """An event whose delivery was not acknowledged before its stream went comes again."""
    group = ConsumerGroup(oona_url, "g", "c", run_id="run", idle_ms=0)
    publish(oona_url, [1])
    assert sequences(group.read(5.0)) == [1]
    admin.flushall()
    assert group.claim() == []
    publish(oona_url, [1, 2])
    assert sequences(group.read(5.0)) == [1, 2]
    group.close()


def test_runs_to_come_are_found(oona_url: str) -> None:
    """Without a run id every run is read, also one that begins later."""
    clock = itertools.count().__next__  # every look at it is a second later
    group = ConsumerGroup(oona_url, "g", "c", clock=clock)
    publish(oona_url, [1])
    publish(oona_url, [1], run_id="other:run")
    found = [e.run_id for d in group.read(5.0) for e in d.envelopes]
    assert sorted(found) == ["other:run", "run"]
    publish(oona_url, [1], run_id="late")
    assert [e.run_id for d in group.read(5.0) for e in d.envelopes] == ["late"]
    assert group.read(0.0) == []
    group.close()


def test_a_group_without_a_server_says_so() -> None:
    """No server is a ServerError that names it."""
    with pytest.raises(leyline.BusError, match=r"unix:///nowhere/bus\.sock"):
        ConsumerGroup("unix:///nowhere/bus.sock", "g", "c")
