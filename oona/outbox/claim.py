"""A claim on a file: one holder at a time, in this process or in any other."""

from __future__ import annotations

import fcntl
import functools
import os
import weakref
from pathlib import Path


class Claim:
    """The right to send an outbox, or to write a trail; the kernel takes it back from the dead.

    Args:
        path: the file, which is there; None for what lies in memory, which nobody else can see.
    """

    def __init__(self, path: Path | None):
        self._path = path
        self._descriptor: int | None = None
        if path is not None:
            # A forked data loader worker that outlives a killed trainer must not hold it.
            os.register_at_fork(after_in_child=functools.partial(_close, weakref.ref(self)))

    def take(self) -> bool:
        """Take it, or say that another has it; again is no harm.

        Raises:
            OSError: the file cannot be opened.
        """
        if self._path is None or self._descriptor is not None:
            return True
        descriptor = os.open(self._path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Let the next one have it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _close(reference: weakref.ref[Claim]) -> None:
    """In a forked child: it is the parent's."""
    claim = reference()
    if claim is not None:
        claim.release()
