"""The background writer: it copies, hands over, and tells what went wrong."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from leyline import Fault
from tests.tolaria.disk.test_checkpoint import FaultyOps, is_state, state_of
from tests.tolaria.plain_loops import SCHEDULE, adam, attach, faults, listen, make_host, run
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria.disk.checkpoint import load
from tolaria.disk.files import FileOps
from tolaria.disk.journal import read
from tolaria.disk.manifest import Occasion
from tolaria.disk.staging import Staging
from tolaria.disk.store import CheckpointStore
from tolaria.disk.writer import CheckpointWriter

ROUTINE = Occasion()


class Gate(FileOps):
    """A disk that makes directories of checkpoints only once it is opened."""

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self.threads: set[int] = set()

    def mkdir(self, path: Path) -> None:
        if path.name.startswith(".tmp-"):
            self.threads.add(threading.get_ident())
            assert self.is_open.wait(30)
        super().mkdir(path)


def writer_on(folder: Path, ops: FileOps, **options: Any) -> CheckpointWriter:
    """One whose journal is always durable."""
    settings = {"background": True} | options
    return CheckpointWriter(CheckpointStore(folder, ops=ops), lambda: None, **settings)


def test_the_training_thread_does_not_touch_the_disk(tmp_path: Path) -> None:
    """With a disk that does nothing yet a save returns; what is written later is the state as it
    was then, though it has changed since."""
    gate = Gate()
    writer = writer_on(tmp_path, gate)
    state = state_of(1)
    assert writer.save(1, state, ROUTINE) is None
    for tensor in state["state_dict"].values():
        tensor.zero_()
    gate.is_open.set()
    assert writer.close() is None
    assert is_state(load(tmp_path / "active" / "step-00000001"), 1)
    assert gate.threads
    assert threading.get_ident() not in gate.threads


def test_a_second_save_waits_its_time_and_is_skipped_and_counted(tmp_path: Path) -> None:
    """At most one is in flight: with no time to wait the next ones are given up by step; the one in
    flight is not harmed, and later ones are written again."""
    gate = Gate()
    writer = writer_on(tmp_path, gate, wait_s=0.0)
    assert writer.save(1, state_of(1), ROUTINE) is None
    for skipped in (2, 3):
        said = writer.save(skipped, state_of(skipped), ROUTINE)
        assert said is not None
        assert f"the checkpoint of step {skipped} was skipped" in said
        assert f"{skipped - 1} skipped so far" in said
    assert "not yet written" in (writer.close() or "")
    gate.is_open.set()
    while not writer.wait():
        os.sched_yield()
    assert writer.save(4, state_of(4), ROUTINE) is None
    while not writer.wait():
        os.sched_yield()
    assert writer.close() is None
    assert writer.num_skipped == 2
    assert sorted(os.listdir(tmp_path / "active")) == ["step-00000001", "step-00000004"]


@pytest.mark.parametrize("background", [True, False])
def test_what_the_disk_refuses_is_told_by_the_next_call(tmp_path: Path, background: bool) -> None:
    """In the background by the next save, else at once; an fsync that fails voids its checkpoint
    and is not tried again."""
    ops = FaultyOps()
    writer = writer_on(tmp_path, ops, background=background)

    def fail(count: int, name: str, path: Path, data: Any) -> None:
        if name == "fsync" and path.name == "state.safetensors":
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    ops._fault = fail
    ops.log.clear()
    said = [writer.save(1, state_of(1), ROUTINE)]
    writer.wait()
    assert ops.log.count("fsync") == 2
    ops._fault = lambda *_: None
    said += [writer.save(2, state_of(2), ROUTINE), writer.close()]
    told = [sentence is not None for sentence in said]
    assert told == [not background, background, False]
    assert "step-00000001 could not be written" in next(filter(None, said))
    assert os.listdir(tmp_path / "active") == ["step-00000002"]


def test_memory_is_taken_once_and_again_when_a_model_grows(tmp_path: Path) -> None:
    """Saves of one shape use the same memory, which is not much more than is written; a larger
    state takes more; and nothing of the state is shared."""
    staging = Staging()
    state = {
        "state_dict": {"w": torch.ones(1000, 100)},
        "bf16": torch.ones(7, dtype=torch.bfloat16),
    }
    first = staging.stage(state)
    held = staging.size_bytes
    places = {name: memory.obj for name, memory in first.tensors.items()}
    assert held < 1.2 * sum(len(memory) for memory in first.tensors.values())
    second = staging.stage(state | {"state_dict": {"w": torch.zeros(1000, 100)}})
    assert {name: memory.obj for name, memory in second.tensors.items()} == places
    assert staging.size_bytes == held
    larger = staging.stage(state | {"more": torch.ones(1000, 100)})
    assert held < staging.size_bytes < 2.5 * held
    assert sum(len(memory) for memory in larger.tensors.values()) > 800_000
    staging.release()
    assert staging.size_bytes == 0


def test_a_save_makes_the_journal_durable_before_it_counts(tmp_path: Path) -> None:
    """What a checkpoint refers to is synced after its files and before the rename."""
    ops = FaultyOps()
    store = CheckpointStore(tmp_path, ops=ops)
    writer = CheckpointWriter(store, lambda: ops.log.append("journal"), background=True)
    ops.log.clear()
    writer.save(1, state_of(1), ROUTINE)
    writer.close()
    at = ops.log.index("journal")
    assert ops.log[at - 1 : at + 2] == ["fsync_dir", "journal", "rename"]


def test_a_save_whose_journal_is_not_durable_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal that the disk refuses to keep voids the checkpoint that refers to it: no resume
    meets one that points beyond its journal; the run is told, and the next save counts."""
    refused: list[Path] = []
    fsync = FileOps.fsync

    def once(ops: FileOps, path: Path) -> None:
        if path.name == "journal.bin" and not refused:
            refused.append(path)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(ops, path)

    model = make_host()
    optimizer = adam(model)
    settings = {"schedule": SCHEDULE, "checkpoint": True}
    with attach(model, optimizer, tmp_path / "run", **settings) as esper:
        heard = listen(esper)
        monkeypatch.setattr(FileOps, "fsync", once)
        run(model, optimizer, esper, 2)
    (fault,) = faults(heard)
    assert fault.where == "checkpoint"
    assert "step-00000004 could not be written: " in fault.what
    assert "journal.bin may not be on the disk" in fault.what
    assert os.listdir(tmp_path / "run" / "checkpoints" / "active") == ["step-00000008"]


def test_a_failure_of_the_last_save_is_a_fault_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up during the last save is told before the run's end; the one before it
    stays, the thread is gone and the directory is free."""
    before = threading.active_count()
    model = make_host()
    optimizer = adam(model)
    settings = {"schedule": SCHEDULE, "checkpoint": True}
    with attach(model, optimizer, tmp_path / "run", **settings) as esper:
        run(model, optimizer, esper, 1)
        assert esper.session.newest_checkpoint() is not None
        heard = listen(esper)

        def full(ops: FileOps, path: Path) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(FileOps, "mkdir", full)
        run(model, optimizer, esper, 1)
    (fault,) = faults(heard)
    assert (fault.where, fault.action) == ("checkpoint", "the one before it stays")
    assert "free some space" in fault.what
    events = list(read(tmp_path / "run" / "journal.bin"))
    assert [type(event) for event in events][-2] is Fault
    assert os.listdir(tmp_path / "run" / "checkpoints" / "active") == ["step-00000004"]
    assert threading.active_count() == before
