"""Outboxes that are damaged, lost or written to by others."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import oona
from oona.outbox import file as outbox_file
from tests.oona.test_bus import EPOCH, NOWHERE, STEP, assert_exact, fault


def test_a_damaged_record_is_counted_and_not_delivered(tmp_path: Path) -> None:
    """A byte flipped in the file costs its own event, by count, and no other."""
    with oona.Bus.open(tmp_path, "run", NOWHERE) as bus:
        assert all(bus.offer(fault(number)) for number in range(10))
    path = tmp_path / outbox_file.FILE_NAME
    path.write_bytes(path.read_bytes().replace(b"fault <5>", b"fault <6>"))
    damaged = oona.read(tmp_path)
    assert [envelope.event.step for envelope in damaged] == [0, 1, 2, 3, 4, 6, 7, 8, 9]  # type: ignore[union-attr]
    assert damaged.num_refused == 1
    with oona.Bus.open(tmp_path, "run") as bus:
        assert_exact(bus.statistics())
        assert bus.flush(10.0)
        assert [envelope.sequence for envelope in oona.read(bus.url)] == [
            1,
            2,
            3,
            4,
            5,
            7,
            8,
            9,
            10,
        ]
        statistics = bus.statistics()
        assert_exact(statistics)
        assert (statistics.delivered, statistics.dropped_by_type) == (9, {"damaged": 1})


@pytest.mark.parametrize("loss", ["deleted", "header", "cut", "empty"])
def test_no_event_is_mistaken_for_one_of_a_lost_outbox(tmp_path: Path, loss: str) -> None:
    """Whatever became of the file, the events of a run that goes on have numbers of their own."""
    with oona.Bus.open(tmp_path, "run", "memory") as bus:
        assert all(bus.offer(STEP) for _ in range(10))
    before = {envelope.sequence for envelope in oona.read(tmp_path)}
    path = tmp_path / outbox_file.FILE_NAME
    content = path.read_bytes()
    damaged = {"header": b"??" + content[2:], "cut": content[:50], "empty": b""}
    path.unlink()
    if loss in damaged:
        path.write_bytes(damaged[loss])
    for _ in range(2):
        with oona.Bus.open(tmp_path, "run", "memory") as bus:
            assert bus.offer(STEP)
        after = [envelope.sequence for envelope in oona.read(tmp_path)]
        assert len(after) == len(set(after))
        assert not before & set(after)


@pytest.mark.parametrize("at", [64, 256, 512, 768, 1024, 3072])
@pytest.mark.parametrize("filler", [b"\xff", b"\x07", b"\x80\x01"], ids=["ones", "sevens", "mixed"])
def test_a_file_spoilt_by_others_ends_neither_an_offer_nor_the_bus(
    tmp_path: Path, at: int, filler: bytes
) -> None:
    """Foreign bytes in a live outbox may cost events and counts; nothing raises, nothing hangs."""
    with oona.Bus.open(tmp_path, "run", NOWHERE, ring_size_bytes=4096) as bus:
        for _ in range(3):
            for _ in range(100):
                bus.offer(STEP)
                bus.offer(fault(1))
            with (tmp_path / outbox_file.FILE_NAME).open("r+b") as file:
                file.seek(at)
                file.write(filler * (256 // len(filler)))
        assert bus.offer(EPOCH) in (True, False)
        bus.statistics()
        bus.report(1)
        before = time.monotonic()
    assert time.monotonic() - before < 10.0
