"""The outbox and its file."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import leyline
import oona
from leyline import Priority
from oona.outbox import file as outbox_file
from oona.outbox.outbox import Outbox

TYPES = {
    Priority.METRIC: "StepMetrics",
    Priority.REPORT: "EpochMetrics",
    Priority.DECISION: "Decision",
    Priority.EMERGENCY: "Fault",
}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(list(Priority)), st.integers(1, 300)),
            st.tuples(st.just("send"), st.sampled_from(list(Priority))),
            st.tuples(st.just("reopen"), st.just(0)),
        ),
        max_size=60,
    )
)
def test_the_ledger_is_exact_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[object, int]]
) -> None:
    """offered == delivered + dropped + queued after every offer, send and reopening."""
    path = tmp_path_factory.mktemp("run") / outbox_file.FILE_NAME
    outbox = Outbox(path, ring_size_bytes=512)
    num_offered = num_refused = num_sent = 0
    for action, argument in actions:
        if isinstance(action, Priority):
            num_offered += 1
            num_refused += not outbox.append(action, TYPES[action], bytes(argument))
        elif action == "send":
            ring = outbox.rings[Priority(argument)]
            batch = ring.take(ring.state.tail, 3, 10_000)
            if batch is not None:
                num_sent += len(batch.records)
                outbox.acknowledge(Priority(argument), batch)
        else:
            outbox = Outbox(path, ring_size_bytes=4096)
        ledger = outbox.count()
        assert ledger.offered == num_offered
        assert sum(ledger.dropped_by_type.values()) == num_refused
        assert ledger.delivered == num_sent
        assert ledger.queued == num_offered - num_refused - num_sent
        assert outbox.is_drained() == (ledger.queued == 0)


def test_space_is_really_allocated(tmp_path: Path) -> None:
    """No block of the file is missing, so no store can fail for want of space."""
    path = tmp_path / outbox_file.FILE_NAME
    Outbox(path, ring_size_bytes=100_000)
    status = path.stat()
    assert status.st_size >= 400_000
    assert status.st_blocks * 512 >= status.st_size


NO_ROOM = """
import pathlib, resource, sys
from oona.outbox.outbox import Outbox
from leyline import Priority
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
outbox = Outbox(pathlib.Path(sys.argv[1]), ring_size_bytes=100_000)
assert all(outbox.append(lane, "Fault", b"x" * 90_000) for lane in Priority)
print(outbox.count().queued, outbox.warnings)
"""


def test_without_room_events_are_kept_in_memory(
    tmp_path: Path, spawn: Callable[..., subprocess.Popen[bytes]]
) -> None:
    """A file that cannot be allocated is replaced by memory of the same layout, with a warning."""
    child = spawn(NO_ROOM, str(tmp_path / outbox_file.FILE_NAME))
    printed = child.communicate(timeout=30)[0].decode()
    assert child.returncode == 0
    assert printed.startswith("4 ['events are in memory only")
    assert list(tmp_path.iterdir()) == [], "no half-made file takes what little room there is"


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"\0garbage" + content[8:],
        lambda content: content[:10] + b"\xff" + content[11:],
        lambda content: content[:-1],
        lambda content: content[:500],
        lambda content: content[:256] + b"\x07" * 512 + content[768:],
    ],
    ids=["magic", "header", "shorter", "cut", "states"],
)
def test_a_file_that_is_no_outbox_is_moved_aside(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    """A damaged file is kept under another name and said so; a fresh outbox takes its place."""
    path = tmp_path / outbox_file.FILE_NAME
    Outbox(path, ring_size_bytes=512).append(Priority.METRIC, "StepMetrics", b"event")
    content = damage(path.read_bytes())
    path.write_bytes(content)
    outbox = Outbox(path, ring_size_bytes=512)
    assert outbox.count().offered == 0
    assert "kept as outbox.bin.damaged" in outbox.warnings[0]
    assert (tmp_path / "outbox.bin.damaged").read_bytes() == content


def test_a_file_cut_off_while_it_was_made_is_made_again(tmp_path: Path) -> None:
    """A kill before the header was written leaves zeros, which count as no file."""
    path = tmp_path / outbox_file.FILE_NAME
    path.write_bytes(bytes(70_000))
    outbox = Outbox(path, ring_size_bytes=512)
    assert outbox.warnings == []
    assert outbox.append(Priority.METRIC, "StepMetrics", b"event")
    assert outbox_file.read_file(path) == ([b"event"], 0)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A symbolic link in place of the file is not written through."""
    target = tmp_path / "precious"
    target.write_bytes(b"")
    os.symlink(target, tmp_path / outbox_file.FILE_NAME)
    outbox = Outbox(tmp_path / outbox_file.FILE_NAME)
    assert "memory only" in outbox.warnings[0]
    assert target.read_bytes() == b""


def test_a_ring_too_small_is_refused(tmp_path: Path) -> None:
    """The error names the size and what is allowed."""
    with pytest.raises(leyline.ConfigError, match="ring size of 10 bytes refused: at least 256"):
        Outbox(tmp_path / outbox_file.FILE_NAME, ring_size_bytes=10)


def test_a_reader_sees_all_lanes_and_counts_damage(tmp_path: Path) -> None:
    """Another process reads acknowledged and waiting records, and counts what is damaged."""
    path = tmp_path / outbox_file.FILE_NAME
    outbox = Outbox(path, ring_size_bytes=4096)
    for lane in Priority:
        for number in range(3):
            outbox.append(lane, TYPES[lane], f"{lane.name}-{number}".encode())
    ring = outbox.rings[Priority.DECISION]
    outbox.acknowledge(Priority.DECISION, ring.take(0, 9, 999))  # type: ignore[arg-type]
    everything = [f"{lane.name}-{number}".encode() for lane in Priority for number in range(3)]
    assert outbox_file.read_file(path) == (everything, 0)
    content = path.read_bytes()
    for damaged in (b"DECISION-0", b"REPORT-1", b"METRIC-2"):
        content = content.replace(damaged, b"?" + damaged[1:])
        everything.remove(damaged)
    path.write_bytes(content)
    assert outbox_file.read_file(path) == (everything, 3)


def test_ledger_of_a_directory_is_the_live_ledger(tmp_path: Path) -> None:
    """Another process reads the same counts from the run directory that the bus itself reports."""
    with oona.Bus.open(tmp_path, "run", "memory") as bus:
        for step in range(20):
            bus.offer(leyline.StepMetrics(step=step, loss=1.0))
        assert bus.flush(5.0)
        live, read = bus.statistics(), oona.ledger(tmp_path)

    counts = (read.offered, read.delivered, read.dropped, read.queued)
    assert counts == (live.offered, live.delivered, live.dropped, live.queued) == (20, 20, 0, 0)


def test_ledger_of_a_run_without_a_bus_is_zero(tmp_path: Path) -> None:
    """A run whose telemetry is off has an empty ledger."""
    assert oona.ledger(tmp_path) == oona.Ledger(0, 0, 0, {})
