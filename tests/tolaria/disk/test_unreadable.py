"""Disks that do not list, read or delete: no sound checkpoint is lost, nothing stays behind."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from leyline import CheckpointError
from tests.tolaria.disk.test_checkpoint import (
    FaultyOps,
    commit_or_say,
    is_state,
    names,
    state_of,
    store_of,
)
from tolaria.disk.checkpoint import load
from tolaria.disk.manifest import FILE_NAME, Occasion
from tolaria.disk.writer import CheckpointWriter


@contextmanager
def no_more_files() -> Iterator[None]:
    """This process may open no more files; those that are open stay."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_where_no_file_can_be_opened_a_save_is_refused_by_name(tmp_path: Path) -> None:
    """The training thread gets a sentence, not an OSError, and the next save works."""
    store = store_of(tmp_path, 1)
    writer = CheckpointWriter(store, lambda: None, background=False)
    with no_more_files():
        problem = writer.save(2, state_of(2), Occasion())
        with pytest.raises(CheckpointError, match="checkpoints cannot be read: Too many open"):
            store.newest_valid()
    assert problem is not None
    assert "Too many open files" in problem
    assert writer.save(2, state_of(2), Occasion()) is None
    assert names(store) == ["step-00000001", "step-00000002"]


def test_a_commit_counts_though_the_old_ones_cannot_be_listed(tmp_path: Path) -> None:
    """It is there, whole, and the next commit removes what this one could not."""
    with ExitStack() as limits:
        seen = []

        def after_the_rename(number: int, name: str, path: Path, data: bytes | None) -> None:
            seen.append(name)
            if seen[-2:] == ["rename", "fsync_dir"]:
                limits.enter_context(no_more_files())

        store_of(tmp_path, 1, 2)
        store = store_of(tmp_path, ops=FaultyOps(after_the_rename))
        path = store.commit(3, state_of(3))
    assert is_state(load(path), 3)
    assert names(store) == ["step-00000001", "step-00000002", "step-00000003"]
    store_of(tmp_path, 4)
    assert names(store) == ["step-00000003", "step-00000004"]


@pytest.mark.parametrize("archived", [True, False])
def test_what_cannot_be_read_stays(
    tmp_path: Path, archived: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A good checkpoint whose manifest the disk does not give back once is there afterwards."""
    steps = (11, 12, 13) if archived else (11, 12)
    kept = store_of(tmp_path, *steps).paths()[0]
    assert (kept.parent.name == "archive") == archived
    store, read = store_of(tmp_path), Path.read_bytes

    def refused(path: Path) -> bytes:
        if path == kept / FILE_NAME:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return read(path)

    with monkeypatch.context() as disk:
        disk.setattr(Path, "read_bytes", refused)
        store.commit(14, state_of(14))
    assert is_state(load(kept), 11)
    store.commit(15, state_of(15))
    assert [path.name for path in store.archive.iterdir()] == [kept.name]
    assert not store.problems


def test_what_could_not_be_removed_is_removed_when_the_disk_allows(tmp_path: Path) -> None:
    """A half-written checkpoint that the disk would not even delete goes with the next commit,
    and at the end of a run without one."""
    ops = FaultyOps()
    store = store_of(tmp_path, 1, ops=ops)

    def refuse(number: int, name: str, path: Path, data: bytes | None) -> None:
        if name in ("rename", "remove", "rmdir"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    for step in (2, 4):
        ops._fault = refuse
        assert "could not be written" in commit_or_say(store, step)[1]
        assert names(store)[0] == f".tmp-step-0000000{step}"
        ops._fault = lambda *_: None
        if step == 2:
            assert commit_or_say(store, 3)[1] == ""
            assert names(store) == ["step-00000001", "step-00000003"]
    assert CheckpointWriter(store, lambda: None, background=False).close() is None
    assert names(store) == ["step-00000001", "step-00000003"]
