"""The one seam through which durable files are written, so that a test can fail any operation."""

from __future__ import annotations

import errno
import fcntl
import io
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from leyline import RunError

_OWN: Final = os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
"""A link that somebody has put into a run's directory must not lead what is written elsewhere."""


class FileOps:
    """Operations on files that must survive a crash; every method is one operation on the disk.

    A subclass may die or raise OSError at any of them. The composite operations at the end are
    made of the others. All raise OSError.
    """

    def mkdir(self, path: Path) -> None:
        """Create one directory, which must not exist."""
        path.mkdir()

    def write(self, path: Path, data: bytes | memoryview) -> None:
        """Create or empty a file and write all of its bytes; not durable before `fsync`."""
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | _OWN, 0o644)
        with open(descriptor, "wb", buffering=0) as file:
            self.append(file, data)

    def append(self, file: io.FileIO, data: bytes | memoryview) -> None:
        """Write all of the bytes at an unbuffered file's end."""
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]

    def truncate(self, path: Path, size_bytes: int) -> None:
        """Cut a file down to its first bytes."""
        os.truncate(path, size_bytes)

    def fsync(self, path: Path) -> None:
        """Wait until a file's bytes, or a directory's entries, are on the disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def fsync_dir(self, path: Path) -> None:
        """Wait until a directory's entries are on the disk."""
        FileOps.fsync(self, path)

    def rename(self, source: Path, target: Path) -> None:
        """Move a file over another, or a directory to a new name, at once."""
        os.replace(source, target)

    def remove(self, path: Path) -> None:
        """Delete one file."""
        path.unlink()

    def rmdir(self, path: Path) -> None:
        """Delete one empty directory."""
        path.rmdir()

    def lock(self, path: Path) -> io.FileIO:
        """Open a file and hold it against every other holder until it is closed.

        The kernel frees it when the last process that has it open ends, however that happens.

        Raises:
            BlockingIOError: another holder has it, in this process or in another one.
        """
        file = io.FileIO(os.open(path, os.O_RDWR | _OWN, 0o644), "r+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            file.close()
            raise
        return file

    def mkdir_with_parents(self, path: Path) -> None:
        """Create a directory and those above it, as far as they are missing, durably."""
        missing = [folder for folder in (path, *path.parents) if not folder.is_dir()]
        for folder in reversed(missing):
            with suppress(FileExistsError):
                self.mkdir(folder)
            self.fsync_dir(folder.parent)
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))

    def remove_tree(self, path: Path) -> None:
        """Delete a directory and all in it, or a file; links are deleted, never followed."""
        if path.is_symlink() or not path.is_dir():
            self.remove(path)
            return
        for entry in sorted(path.iterdir()):
            self.remove_tree(entry)
        self.rmdir(path)


DISK: Final = FileOps()
"""The real thing; it has no state."""


def reason(error: OSError) -> str:
    """What the system said, and what to do about a full disk or a link."""
    said = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{said}; free some space on that disk"
    if error.errno == errno.ELOOP:
        return "it is a link, and a run writes to no file elsewhere; put the file itself there"
    return said


def write_atomic(path: Path, data: bytes, ops: FileOps = DISK) -> None:
    """Replace a file's content durably: a crash leaves all of the old bytes or all of the new.

    One writer for each path at a time.

    Raises:
        RunError: the disk refused. The old content is untouched and nothing is left behind; only
            when the very last step fails is the new content there, but perhaps not durable.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        ops.write(temporary, data)
        ops.fsync(temporary)
        ops.rename(temporary, path)
        ops.fsync_dir(path.parent)
    except OSError as error:
        with suppress(OSError):
            ops.remove(temporary)
        raise RunError(f"{path} could not be written: {reason(error)}") from error
