"""The file that a child process writes its log to."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_log(path: Path) -> BinaryIO:
    """Open a log to append to, without ever waiting: a pipe in its place would hold up the run.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW
    number = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(f"the log {path} is no regular file; remove it")
    return open(number, "ab")
