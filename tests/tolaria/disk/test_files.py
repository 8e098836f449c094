from __future__ import annotations

import errno
import os
import resource
import sys
from pathlib import Path

import pytest

from leyline import RunError
from tolaria.disk.files import FileOps, write_atomic

OPERATIONS = ("write", "fsync", "rename", "fsync_dir")


class FullDisk(FileOps):
    """Fails at one operation, writing half of the bytes where it can."""

    def __init__(self, operation: str, code: int):
        self.operation = operation
        self.code = code

    def fail(self, operation: str, path: Path) -> None:
        if operation == self.operation:
            raise OSError(self.code, os.strerror(self.code), str(path))

    def write(self, path, data):
        super().write(path, data[: len(data) // 2])
        self.fail("write", path)
        super().write(path, data)

    def fsync(self, path):
        self.fail("fsync", path)
        super().fsync(path)

    def rename(self, source, target):
        self.fail("rename", target)
        super().rename(source, target)

    def fsync_dir(self, path):
        self.fail("fsync_dir", path)
        super().fsync_dir(path)


def test_a_file_is_replaced_whole(tmp_path):
    """write_atomic leaves the new bytes and nothing else in the directory."""
    path = tmp_path / "config.toml"
    write_atomic(path, b"old")
    write_atomic(path, b"new" * 100_000)
    assert path.read_bytes() == b"new" * 100_000
    assert os.listdir(tmp_path) == ["config.toml"]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_full_disk_is_named_and_changes_nothing(tmp_path, operation, code):
    """A disk that refuses any operation gives an error with the path, no temporary, old bytes."""
    path = tmp_path / "report.html"
    write_atomic(path, b"old")
    with pytest.raises(RunError, match=r"report\.html could not be written") as caught:
        write_atomic(path, b"new bytes", FullDisk(operation, code))
    assert ("free some space" in str(caught.value)) == (code != errno.EIO)
    assert path.read_bytes() == (b"new bytes" if operation == "fsync_dir" else b"old")
    assert os.listdir(tmp_path) == ["report.html"]


def test_bytes_are_durable_before_they_get_their_name(tmp_path):
    """The order is write, fsync, rename, fsync of the directory."""
    seen = []

    class Recorder(FullDisk):
        def fail(self, operation, path):
            seen.append((operation, path.name))

    write_atomic(tmp_path / "a", b"1", Recorder("", 0))
    temporary = ".a.tmp"
    assert seen == [
        ("write", temporary),
        ("fsync", temporary),
        ("rename", "a"),
        ("fsync_dir", tmp_path.name),
    ]


def test_half_of_the_bytes_are_no_success(tmp_path):
    """When the system takes only the first of them, the error says so and the old file stays."""
    path = tmp_path / "config.toml"
    write_atomic(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, hard))
    try:
        with pytest.raises(RunError, match="File too large; free some space"):
            write_atomic(path, b"new" * 30)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels may take any file")
def test_a_sync_reaches_the_kernel():
    """Of what cannot be synced, such as a device, the system's own refusal comes back."""
    for sync in (FileOps().fsync, FileOps().fsync_dir):
        with pytest.raises(OSError, match="Invalid argument"):
            sync(Path(os.devnull))


def test_removing_a_tree_does_not_follow_links(tmp_path):
    """A link inside a removed tree goes; what it points at stays."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_bytes(b"1")
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "link").symlink_to(tmp_path / "precious")
    FileOps().remove_tree(tmp_path / "tree")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    FileOps().remove_tree(tmp_path / "link")
    assert os.listdir(tmp_path) == ["precious"]
    assert (tmp_path / "precious" / "file").exists()
