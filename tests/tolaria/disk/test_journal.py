from __future__ import annotations

import errno
import math
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline import EpochMetrics, Fault, RunEnded, RunError, StepMetrics, decode, encode
from tolaria.disk.files import FileOps
from tolaria.disk.journal import Journal, read

EVENTS = [
    StepMetrics(step=1, loss=0.5),
    EpochMetrics(epoch=1, num_epochs=3, step=9, metrics={"a": 1.0}, parameters=7, stages={}),
    Fault(epoch=1, step=9, where="policy", what="late", action="hold"),
    RunEnded(run_id="r", epoch=1, status="finished", parameters=7, metrics={}),
]


def written(path, events=EVENTS):
    journal = Journal.open(path)
    ends = [journal.position]
    for event in events:
        journal.append(event)
        ends.append(journal.position)
    journal.sync()
    journal.close()
    return ends


def test_events_come_back_in_order(tmp_path):
    """What was appended over two openings is read back, equal and in order."""
    path = tmp_path / "journal"
    written(path)
    written(path)
    assert list(read(path)) == EVENTS * 2


def test_a_reader_sees_an_event_as_soon_as_it_is_appended(tmp_path):
    """No sync or close is needed before another reader, or a reader after SIGKILL, sees it."""
    journal = Journal.open(tmp_path / "journal")
    for i, event in enumerate(EVENTS):
        journal.append(event)
        assert list(read(tmp_path / "journal")) == EVENTS[: i + 1]
        assert journal.position == os.path.getsize(tmp_path / "journal")
    journal.close()


def test_a_synced_journal_is_on_the_disk_with_its_name(tmp_path):
    """Its directory is synced once, when it is made, and the file whenever that is asked for."""
    seen = []

    class Recorder(FileOps):
        def fsync(self, path):
            seen.append(("fsync", path.name))
            super().fsync(path)

        def fsync_dir(self, path):
            seen.append(("fsync_dir", path.name))
            super().fsync_dir(path)

    for _ in range(2):
        journal = Journal.open(tmp_path / "journal", ops=Recorder())
        journal.append(EVENTS[0])
        journal.sync()
        journal.close()
    assert seen == [("fsync_dir", tmp_path.name), ("fsync", "journal"), ("fsync", "journal")]


def test_every_torn_tail_is_left_out_and_cut_off(tmp_path):
    """Cut at any byte, the file reads as its whole records, and an append follows these."""
    path = tmp_path / "journal"
    ends = written(path)
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        whole = sum(end <= size for end in ends) - 1
        assert list(read(path)) == EVENTS[:whole]
        journal = Journal.open(path)
        assert journal.position == ends[whole]
        journal.append(EVENTS[0])
        journal.close()
        assert list(read(path)) == [*EVENTS[:whole], EVENTS[0]]


def test_zeros_after_a_power_loss_are_cut_off(tmp_path):
    """A tail of zeros, or a last record whose end is zeros, is no event and no error."""
    path = tmp_path / "journal"
    ends = written(path)
    data = path.read_bytes()
    for keep in (ends[-1], ends[-1] - 5):
        path.write_bytes(data[:keep].ljust(9000, b"\0"))
        journal = Journal.open(path)
        assert journal.position == (ends[-1] if keep == ends[-1] else ends[-2])
        journal.close()


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damage_before_the_last_record_is_never_silent_below_a_checkpoint(tmp_path_factory, data):
    """One flipped byte before a checkpoint's position is refused, and the file stays as it was."""
    path = tmp_path_factory.mktemp("j") / "journal"
    ends = written(path)
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, ends[-1] - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"damaged at byte|no record that ends|another version"):
        Journal.open(path, position=ends[-1])
    assert path.read_bytes() == content


def test_damage_in_the_middle_is_named_not_cut(tmp_path):
    """A damaged record with sound ones behind it is an error for readers and for writers."""
    path = tmp_path / "journal"
    ends = written(path)
    content = bytearray(path.read_bytes())
    content[ends[2] - 1] ^= 1
    path.write_bytes(content)
    for use in (lambda: list(read(path)), lambda: Journal.open(path)):
        with pytest.raises(RunError, match=f"damaged at byte {ends[1]}"):
            use()
    assert path.read_bytes() == content
    journal = Journal.open(path, position=ends[1])  # a checkpoint before the damage still works
    assert list(read(path)) == EVENTS[:1]
    journal.close()


def test_a_journal_of_another_version_is_no_damage(tmp_path):
    """It is said to be what it is, and what to do; nothing is cut."""
    path = tmp_path / "journal.bin"
    written(path)
    data = bytearray(path.read_bytes())
    data[4 + 4] += 1  # behind the record's length and the magic
    path.write_bytes(data)
    with pytest.raises(RunError, match=r"written by another version of Esper .* begin a run in"):
        list(read(path))
    with pytest.raises(RunError, match="another version"):
        Journal.open(path)
    assert path.read_bytes() == data


def test_going_back_undoes_what_came_after(tmp_path):
    """Truncating to a position, at once or on opening, leaves exactly the events before it."""
    path = tmp_path / "journal"
    ends = written(path)
    for i, end in reversed(list(enumerate(ends))):
        journal = Journal.open(path)
        journal.truncate(end)
        journal.append(EVENTS[-1])
        journal.close()
        assert list(read(path)) == [*EVENTS[:i], EVENTS[-1]]
    written(path)
    journal = Journal.open(path, position=0)
    assert (journal.position, os.path.getsize(path)) == (0, 0)
    journal.close()


@pytest.mark.parametrize("offset", [-1, 1, 10_000])
def test_a_position_that_is_no_end_is_refused(tmp_path, offset):
    """A position inside or behind the records is refused, and nothing changes."""
    path = tmp_path / "journal"
    ends = written(path)
    before = path.read_bytes()
    journal = Journal.open(path)
    for back in (journal.truncate, lambda position: Journal.open(path, position=position)):
        with pytest.raises(RunError, match="has no record that ends at byte"):
            back(ends[2] + offset)
    journal.close()
    assert path.read_bytes() == before


def test_a_full_disk_leaves_the_history_as_it_was(tmp_path):
    """An append that stops halfway is undone; the next one, with space again, is read back."""

    class Full(FileOps):
        full = False

        def append(self, file, data):
            if self.full:
                super().append(file, data[: len(data) // 2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            super().append(file, data)

    ops = Full()
    journal = Journal.open(tmp_path / "journal", ops=ops)
    journal.append(EVENTS[0])
    position = journal.position
    ops.full = True
    with pytest.raises(RunError, match=r"journal could not be written: .*; free some space"):
        journal.append(EVENTS[1])
    assert journal.position == position == os.path.getsize(tmp_path / "journal")
    ops.full = False
    journal.append(EVENTS[2])
    journal.close()
    assert list(read(tmp_path / "journal")) == [EVENTS[0], EVENTS[2]]


def test_a_torn_record_that_could_not_be_cut_off_is_cut_off_later(tmp_path):
    """A disk that refuses even to cut loses what is told while it does, and no more: the journal
    can be synced and read at any time, and goes on once the disk is well."""

    class Broken(FileOps):
        broken = False

        def append(self, file, data):
            super().append(file, data[: len(data) // 2] if self.broken else data)
            if self.broken:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        def truncate(self, path, size_bytes):
            if self.broken:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            super().truncate(path, size_bytes)

    ops = Broken()
    journal = Journal.open(tmp_path / "journal", ops=ops)
    journal.append(EVENTS[0])
    position = journal.position
    ops.broken = True
    for event in EVENTS[1:3]:
        with pytest.raises(RunError, match=r"journal could not be .*Input/output error"):
            journal.append(event)
        journal.sync()
        assert journal.position == position < os.path.getsize(tmp_path / "journal")
        assert list(read(tmp_path / "journal")) == EVENTS[:1]
    ops.broken = False
    journal.append(EVENTS[3])
    journal.close()
    assert list(read(tmp_path / "journal")) == [EVENTS[0], EVENTS[3]]


def test_a_closed_journal_says_so(tmp_path):
    """Every change to a closed journal is refused; closing twice is not."""
    journal = Journal.open(tmp_path / "journal")
    journal.close()
    journal.close()
    for use in (lambda: journal.append(EVENTS[0]), journal.sync, lambda: journal.truncate(0)):
        with pytest.raises(RunError, match="is closed"):
            use()


def test_a_missing_journal_is_named(tmp_path):
    """Reading a journal that is not there names it."""
    with pytest.raises(RunError, match="gone cannot be read: No such file"):
        list(read(tmp_path / "gone"))


def test_floats_are_exact(tmp_path):
    """Losses come back bit for bit, infinities and NaN too."""
    path = tmp_path / "journal"
    losses = [0.1, -0.0, 5e-324, math.inf, -math.inf, math.nan]
    written(path, [StepMetrics(step=i, loss=loss) for i, loss in enumerate(losses)])
    assert [event.loss.hex() for event in read(path)] == [loss.hex() for loss in losses]
    assert decode(encode(EVENTS[0])) == EVENTS[0]
