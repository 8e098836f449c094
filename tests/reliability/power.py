"""A disk that loses what was not synced: what may be there after power is cut at any moment.

The model is POSIX at its strictest. What a file holds is durable after its fsync, what a directory
lists after the directory's; of everything else any part may be lost, whatever the order was. A
rename alone is never seen by half, as on every file system with a journal.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Final

from tolaria.disk.files import FileOps

CONTENTS: Final[tuple[Callable[[bytes], bytes], ...]] = (
    lambda data: b"",
    lambda data: bytes(len(data)),
    lambda data: data[: len(data) // 2],
    lambda data: data,
)
"""What a file that was not synced may hold: nothing, zeros, its first half, all of it."""


@dataclass(eq=False)
class File:
    """A file apart from its name."""

    data: bytes
    is_synced: bool = True


@dataclass(eq=False)
class Folder:
    """A directory apart from its name."""

    now: dict[str, Node] = field(default_factory=dict)
    """What a running process sees."""
    on_disk: dict[str, Node] = field(default_factory=dict)
    """What is durable."""


Node = File | Folder
Entries = tuple[tuple[Folder, str, Node | None], ...]
"""Of a directory, a name, and what it stands for from now on; None: nothing any more."""


class Disk(FileOps):
    """Does every operation on the real directory, and knows what of it is durable.

    Args:
        root: everything below it is modelled; what is there already is durable.
        after: called after every operation, when power may be cut.
    """

    def __init__(self, root: Path, after: Callable[[], None]):
        self._root = root
        self._tree = _read(root)
        self._pending: list[Entries] = []
        self._after = after

    def mkdir(self, path: Path) -> None:
        super().mkdir(path)
        self._change(path, Folder())

    def write(self, path: Path, data: bytes | memoryview) -> None:
        super().write(path, data)
        self._change(path, File(bytes(data), is_synced=False))

    def rename(self, source: Path, target: Path) -> None:
        node = self._node(source)
        super().rename(source, target)
        self._apply(
            (self._folder(source.parent), source.name, None),
            (self._folder(target.parent), target.name, node),
        )

    def remove(self, path: Path) -> None:
        super().remove(path)
        self._change(path, None)

    def rmdir(self, path: Path) -> None:
        super().rmdir(path)
        self._change(path, None)

    def fsync(self, path: Path) -> None:
        node = self._node(path)
        assert isinstance(node, File), f"{path} is synced as a file"
        node.is_synced = True
        self._after()

    def fsync_dir(self, path: Path) -> None:
        folder = self._folder(path)
        synced = [entries for entries in self._pending if any(of is folder for of, *_ in entries)]
        for entries in synced:
            self._pending.remove(entries)
            for of, name, node in entries:
                _set(of.on_disk, name, node)
        self._after()

    def states(self, chance: random.Random, most: int) -> Iterator[Folder]:
        """Trees that may be there if power is cut now; all of them, or so many drawn."""
        files = [f for f in _files(self._tree) if not f.is_synced]
        num_states = 2 ** len(self._pending) * len(CONTENTS) ** len(files)
        choices: Any
        if num_states <= most:
            kept = product((False, True), repeat=len(self._pending))
            choices = product(kept, product(CONTENTS, repeat=len(files)))
        else:
            choices = (
                (
                    [chance.random() < 0.5 for _ in self._pending],
                    [chance.choice(CONTENTS) for _ in files],
                )
                for _ in range(most)
            )
        for keeps, contents in choices:
            kept_entries = [e for e, keep in zip(self._pending, keeps, strict=True) if keep]
            held = {id(f): content for f, content in zip(files, contents, strict=True)}
            yield _survivor(self._tree, kept_entries, held)

    def _change(self, path: Path, node: Node | None) -> None:
        self._apply((self._folder(path.parent), path.name, node))

    def _apply(self, *entries: tuple[Folder, str, Node | None]) -> None:
        for folder, name, node in entries:
            _set(folder.now, name, node)
        self._pending.append(entries)
        self._after()

    def _node(self, path: Path) -> Node:
        node: Node = self._tree
        for part in path.relative_to(self._root).parts:
            assert isinstance(node, Folder)
            node = node.now[part]
        return node

    def _folder(self, path: Path) -> Folder:
        node = self._node(path)
        assert isinstance(node, Folder), f"{path} is no directory"
        return node


def write_out(tree: Folder, place: Path) -> None:
    """Make a tree on the real disk."""
    place.mkdir()
    for name, node in tree.on_disk.items():
        if isinstance(node, Folder):
            write_out(node, place / name)
        else:
            (place / name).write_bytes(node.data)


def _survivor(
    node: Folder,
    kept: Collection[Entries],
    held: dict[int, Callable[[bytes], bytes]],
) -> Folder:
    """What is left of a directory: what is durable, and those changes that were kept."""
    entries = dict(node.on_disk)
    for change in kept:
        for folder, name, there in change:
            if folder is node:
                _set(entries, name, there)
    found = Folder()
    for name, child in entries.items():
        if isinstance(child, Folder):
            found.on_disk[name] = _survivor(child, kept, held)
        else:
            content = held.get(id(child))
            found.on_disk[name] = File(child.data if content is None else content(child.data))
    return found


def _read(path: Path) -> Folder:
    """What is on the real disk, all of it durable."""
    found = Folder()
    for entry in path.iterdir():
        node: Node = _read(entry) if entry.is_dir() else File(entry.read_bytes())
        found.now[entry.name] = found.on_disk[entry.name] = node
    return found


def _files(folder: Folder) -> Iterator[File]:
    for node in folder.now.values():
        if isinstance(node, Folder):
            yield from _files(node)
        else:
            yield node


def _set(entries: dict[str, Node], name: str, node: Node | None) -> None:
    if node is None:
        entries.pop(name, None)
    else:
        entries[name] = node
