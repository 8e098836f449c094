"""One process fills the outbox, another empties it, and neither waits for the other."""

from __future__ import annotations

import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

from leyline import Priority
from oona.outbox import file as outbox_file
from oona.outbox.outbox import Outbox

NUM_RECORDS = 20_000

WRITER = """
import pathlib, sys
from leyline import Priority
from oona.outbox.outbox import Outbox
outbox = Outbox(pathlib.Path(sys.argv[1]), ring_size_bytes=8192)
print(flush=True)
number = 0
while number < int(sys.argv[2]):
    body = f"{number} ".encode() * (1 + number * 7919 % 60)
    if outbox.rings[Priority.METRIC].append(body[:5], body[5:]):
        number += 1
"""


def body(number: int) -> bytes:
    return f"{number} ".encode() * (1 + number * 7919 % 60)


def test_what_one_appends_the_other_takes_once_and_in_order(
    tmp_path: Path, spawn: Callable[..., subprocess.Popen[bytes]]
) -> None:
    """Twenty thousand records pass a ring of 8 KiB while both work: none is lost or spoilt."""
    path = tmp_path / outbox_file.FILE_NAME
    writer = spawn(WRITER, str(path), str(NUM_RECORDS))
    assert writer.stdout is not None
    writer.stdout.readline()
    outbox = Outbox.to_send(path)
    assert outbox.claim.take()
    ring = outbox.rings[Priority.METRIC]
    num_taken = checksum = expected = 0
    while num_taken < NUM_RECORDS:
        batch = ring.take(ring.state.tail, 50, 10_000)
        if batch is None:
            assert writer.poll() in (None, 0)
            continue
        for record in batch.records:
            checksum = zlib.crc32(record.body, checksum)
            expected = zlib.crc32(body(num_taken), expected)
            num_taken += 1
        assert checksum == expected
        ring.acknowledge(batch)
        assert ring.is_sane()
    assert (ring.state.delivered, ring.state.damaged) == (NUM_RECORDS, 0)
    assert writer.wait(20.0) == 0
    assert ring.state.oldest > 8192, "it went round many times"


def test_opening_it_to_send_changes_nothing(tmp_path: Path) -> None:
    """The sender's view of an outbox leaves every byte of it as it was."""
    path = tmp_path / outbox_file.FILE_NAME
    outbox = Outbox(path, ring_size_bytes=4096)
    outbox.next_sequence()
    outbox.append(Priority.METRIC, "StepMetrics", b"event")
    before = path.read_bytes()
    assert Outbox.to_send(path).count().queued == 1
    assert path.read_bytes() == before
