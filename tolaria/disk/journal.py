"""A run's history on disk: events in the order they happened, each behind its length.

A record is the length of a Leyline message in bytes (uint32, little endian), then the message. A
last record that a crash cut short is not part of the history; damage before it is an error.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, Self, get_args

from leyline import ContractError, Event, RunError, VersionError, decode, encode
from leyline.codec import HEADER_SIZE_BYTES
from leyline.limits import MESSAGE_SIZE_BYTES
from tolaria.disk.files import DISK, FileOps, reason

_LENGTH: Final = struct.Struct("<I")
_EVENTS: Final = get_args(Event)


class Journal:
    """An append-only file of events; the run's lock makes this its only writer."""

    def __init__(self, path: Path, file: io.FileIO, position: int, ops: FileOps):
        self.path: Final = path
        self._file = file
        self._position = position
        self._ops: Final = ops
        self._is_torn = False
        """Whether a part of a record may be behind the history: nothing after it could be read."""

    @classmethod
    def open(cls, path: Path, *, position: int | None = None, ops: FileOps = DISK) -> Self:
        """Open a journal to append to it, creating it if it is not there.

        Args:
            path: the file.
            position: where a checkpoint stopped; all after it is cut off unread. None keeps every
                whole record and cuts off one that a crash has left unfinished.
            ops: how files are written.

        Raises:
            RunError: a record is damaged, no record ends at `position`, or the file is a link; it
                is untouched.
        """
        try:
            if path.is_symlink():
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            if not path.exists():
                ops.write(path, b"")
                ops.fsync_dir(path.parent)
            end = _end(path, position)
            if end < path.stat().st_size:
                ops.truncate(path, end)
            return cls(path, io.FileIO(path, "a"), end, ops)
        except OSError as error:
            raise RunError(f"{path} cannot be opened: {reason(error)}") from error

    @property
    def position(self) -> int:
        """Size of the history in bytes; store it in a checkpoint to come back to this place."""
        return self._position

    def append(self, event: Event) -> None:
        """Add one event; it survives the death of this process, and a power loss after `sync`.

        Raises:
            RunError: the disk refused; the history is as before, and the next one is tried again.
            ContractError: the event is too large to be a message.
        """
        message = encode(event)
        record = _LENGTH.pack(len(message)) + message
        file = self._whole_file()
        try:
            self._ops.append(file, record)
        except OSError as error:
            self._is_torn = True
            with suppress(RunError):  # a disk that is sick now may be well by the next event
                self._whole_file()
            raise RunError(f"{self.path} could not be written: {reason(error)}") from error
        self._position += len(record)

    def sync(self) -> None:
        """Wait until the history is on the disk; another thread may append meanwhile."""
        self._open_file()
        try:
            self._ops.fsync(self.path)
        except OSError as error:
            raise RunError(f"{self.path} may not be on the disk: {reason(error)}") from error

    def truncate(self, position: int) -> None:
        """Go back to an earlier `position`: what happened after it is undone.

        Raises:
            RunError: no record ends there; nothing was changed.
        """
        self._whole_file()
        self._cut(_end(self.path, position))

    def close(self) -> None:
        """Close the file; further calls do nothing."""
        self._file.close()

    def _open_file(self) -> io.FileIO:
        if self._file.closed:
            raise RunError(f"{self.path} is closed; open it again to write to it")
        return self._file

    def _whole_file(self) -> io.FileIO:
        """The file, open and without a part of a record at its end."""
        file = self._open_file()
        if self._is_torn:
            self._cut(self._position)
        return file

    def _cut(self, position: int) -> None:
        try:
            self._ops.truncate(self.path, position)
        except OSError as error:
            raise RunError(
                f"{self.path} could not be cut back to {position} bytes: {reason(error)}"
            ) from error
        self._position = position
        self._is_torn = False


def read(path: Path) -> Iterator[Event]:
    """The events of a journal, oldest first; one that is still being written is left out.

    Raises:
        RunError: the file cannot be read, or a record before the last is damaged.
    """
    try:
        with _opened(path) as file:
            for event, _ in _records(file, path):
                yield event
    except OSError as error:
        raise RunError(f"{path} cannot be read: {reason(error)}") from error


def ends(path: Path) -> Iterator[int]:
    """Where each event of a journal ends, in bytes, oldest first.

    Raises:
        RunError: as `read`.
    """
    try:
        with _opened(path) as file:
            for _, end in _records(file, path):
                yield end
    except OSError as error:
        raise RunError(f"{path} cannot be read: {reason(error)}") from error


def _opened(path: Path) -> io.BufferedReader:
    """The file for reading; a pipe in its place would keep whoever opens it waiting."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise RunError(f"{path} is not an ordinary file; put the run's own journal back")
    return path.open("rb")


def _end(path: Path, position: int | None) -> int:
    """Where the last whole record ends, or `position` once it is proven to be such a place."""
    end = 0
    with _opened(path) as file:
        if end != position:
            for _, end in _records(file, path):
                if position is not None and end >= position:
                    break
    if position is not None and end != position:
        raise RunError(
            f"{path} has no record that ends at byte {position} (the last one before it ends "
            f"at {end}): it does not belong to this checkpoint, or has lost its end"
        )
    return end


def _records(file: io.BufferedReader, path: Path) -> Iterator[tuple[Event, int]]:
    """Every whole record's event and end."""
    start = 0
    while len(prefix := file.read(_LENGTH.size)) == _LENGTH.size:
        (size_bytes,) = _LENGTH.unpack(prefix)
        if not HEADER_SIZE_BYTES <= size_bytes <= MESSAGE_SIZE_BYTES:
            if _only_zeros(file, prefix):
                return  # a power loss may leave the length of a file, and none of its content
            raise RunError(f"{path} is damaged at byte {start}: no event has {size_bytes} bytes")
        try:
            event = decode(file.read(size_bytes))
        except ContractError as error:
            if isinstance(error, VersionError) and not start:
                raise RunError(
                    f"{path} was written by another version of Esper ({error}); read it with that "
                    "one, or begin a run in another directory"
                ) from error
            if _only_zeros(file, b""):
                return  # nothing follows: it was being written when the process or power went
            raise RunError(f"{path} is damaged at byte {start}: {error}") from error
        if not isinstance(event, _EVENTS):
            raise RunError(f"{path} holds a {type(event).__name__} at byte {start}: not an event")
        start += _LENGTH.size + size_bytes
        yield event, start


def _only_zeros(file: io.BufferedReader, data: bytes) -> bool:
    while data or (data := file.read(1 << 16)):
        if any(data):
            return False
        data = b""
    return True
