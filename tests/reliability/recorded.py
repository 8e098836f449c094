"""Operations of FileOps, remembered as the system calls that they should make."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.reliability.strace import Call
from tolaria.disk.files import FileOps


class Recorded(FileOps):
    """Does every operation, counts it, and remembers its system calls, with paths below a root."""

    def __init__(self, root: Path):
        self.done: Counter[str] = Counter()
        self.calls: list[Call] = []
        self._root = root

    def mkdir(self, path: Path) -> None:
        super().mkdir(path)
        self._note("mkdir", self._call("mkdir", path))

    def write(self, path: Path, data: bytes | memoryview) -> None:
        super().write(path, data)
        written = self._call("write", path)._replace(size_bytes=len(data))
        self._note("write", self._call("open", path), written)

    def fsync(self, path: Path) -> None:
        super().fsync(path)
        self._note("fsync", self._call("fsync", path))

    def fsync_dir(self, path: Path) -> None:
        super().fsync_dir(path)
        self._note("fsync_dir", self._call("fsync", path))

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self._note("rename", self._call("rename", source, target))

    def remove(self, path: Path) -> None:
        super().remove(path)
        self._note("remove", self._call("unlink", path))

    def rmdir(self, path: Path) -> None:
        super().rmdir(path)
        self._note("rmdir", self._call("rmdir", path))

    def _note(self, operation: str, *made: Call) -> None:
        self.done[operation] += 1
        self.calls += made

    def _call(self, name: str, *paths: Path) -> Call:
        return Call(name, tuple(str(path.relative_to(self._root)) for path in paths))
