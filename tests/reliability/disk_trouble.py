"""A disk that refuses operations of this process, by their number."""

from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

import pytest

from tolaria.disk.files import FileOps

_PRIMITIVES: Final = (
    *("mkdir", "write", "append", "truncate", "rename", "remove", "rmdir", "fsync", "fsync_dir"),
    "lock",
)
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_FREEING: Final = ("truncate", "remove", "rmdir")
"""What a full disk does all the same."""
SHORT: Final = 0
"""In the place of an error's number: the disk takes a part of what is written to it at a time."""
REFUSALS: Final = (*_FULL, errno.EIO)
_LENGTHS: Final = (1, 1, 1, 2, 5, 30)


class Stretch(NamedTuple):
    """Operations that go wrong: the number of the first, from 1, how many, and in which way."""

    first: int
    length: int
    code: int

    def holds(self, number: int, name: str) -> bool:
        """Whether this operation goes wrong."""
        if (self.code == SHORT and name != "append") or (self.code in _FULL and name in _FREEING):
            return False
        return self.first <= number < self.first + self.length

    @classmethod
    def drawn(cls, chance: Random, first: int, last: int, codes: Sequence[int]) -> Stretch:
        """One that begins between these operations; most are of one alone."""
        return cls(chance.randint(first, last), chance.choice(_LENGTHS), chance.choice(codes))


class Operation(NamedTuple):
    """What was asked of the disk, and what it was struck by."""

    name: str
    path: Path
    by: Stretch | None

    @property
    def is_refused(self) -> bool:
        """Whether it ended in an error."""
        return self.by is not None and self.by.code != SHORT


class Disk:
    """Counts the operations and strikes those of the stretches.

    An append is refused when half of it is written. Nothing is synced: no power is lost here.
    """

    def __init__(self, *stretches: Stretch):
        self.log: list[Operation] = []
        self._stretches = stretches
        self._lock = threading.Lock()

    @property
    def num_strikes(self) -> int:
        """The stretches of which at least one operation was struck."""
        return len({operation.by for operation in self.log} - {None})

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """For a block, this process has no other disk."""
        with pytest.MonkeyPatch.context() as patch:
            for name in _PRIMITIVES:
                patch.setattr(FileOps, name, self._striking(name, getattr(FileOps, name)))
            patch.setattr(os, "posix_fallocate", self._allocating(os.posix_fallocate))
            yield

    def _striking(self, name: str, primitive: Callable[..., Any]) -> Callable[..., Any]:
        def operation(ops: FileOps, target: Path | io.FileIO, *rest: Any) -> Any:
            path = target if isinstance(target, Path) else _path_of(target.fileno())
            by = self._next(name, path)
            if by is not None and name == "append":
                write = target.write  # type: ignore[union-attr]  # an append has a file
                half = -(-len(rest[0]) // 2)
                if by.code == SHORT:
                    return primitive(ops, _Narrow(target, half), *rest)
                write(rest[0][:half])
            _refuse(by, path)
            return None if name.startswith("fsync") else primitive(ops, target, *rest)

        return operation

    def _allocating(self, primitive: Callable[..., None]) -> Callable[..., None]:
        def allocate(descriptor: int, start: int, size_bytes: int) -> None:
            path = _path_of(descriptor)
            _refuse(self._next("allocate", path), path)
            primitive(descriptor, start, size_bytes)

        return allocate

    def _next(self, name: str, path: Path) -> Stretch | None:
        with self._lock:  # checkpoints are written by a thread of their own
            number = len(self.log) + 1
            by = next((each for each in self._stretches if each.holds(number, name)), None)
            self.log.append(Operation(name, path, by))
        return by


class _Narrow:
    """A file that takes no more than so many bytes at a time."""

    def __init__(self, file: Any, most: int):
        self._file, self._most = file, most

    def write(self, data: memoryview) -> int:
        taken: int = self._file.write(data[: self._most])
        return taken


def _refuse(by: Stretch | None, path: Path) -> None:
    if by is not None:
        raise OSError(by.code, os.strerror(by.code), str(path))


def _path_of(descriptor: int) -> Path:
    return Path(os.readlink(f"/proc/self/fd/{descriptor}"))
