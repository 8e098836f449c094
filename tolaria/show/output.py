"""The console that commands print to."""

from __future__ import annotations

import atexit
import errno
import os
import sys
from typing import IO, Any, Final, cast

from rich.console import Console

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class Output(Console):
    """Standard output without colours of its own, which a reader may leave at any time.

    `esper inspect RUN | head` has had what it wanted, and `esper train | head` goes on training; so
    it does where its log is on a disk that is full.
    """

    def __init__(self) -> None:
        super().__init__(highlight=False)

    @property
    def file(self) -> IO[str]:
        """Where it writes to."""
        return cast("IO[str]", _Patient(super().file))

    @file.setter
    def file(self, stream: IO[str]) -> None:
        self._file = stream

    def on_broken_pipe(self) -> None:
        """Print no more; what Python flushes at its end must find a place to go, too."""
        self.quiet = True
        _print_nowhere()


class _Patient:
    """A stream of text that leaves out what a full disk refuses."""

    def __init__(self, stream: IO[str]):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write it, if there is room."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush what there is room for."""
        self._try(self._stream.flush)

    def _try(self, action: Any) -> None:
        try:
            action()
        except OSError as error:
            if error.errno not in _FULL:
                raise
            # Python flushes at its end, and would make an error of it there.
            atexit.unregister(_flush_or_forget)
            atexit.register(_flush_or_forget)


def _flush_or_forget() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        _print_nowhere()


def _print_nowhere() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
