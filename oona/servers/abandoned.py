"""Directories of servers whose parents were killed: removed by the next server that starts."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path
from typing import Final

_LEFT_AFTER_S: Final = 60.0
"""Age at which a directory is none of a server that is just being started."""


def remove_abandoned(mine: Path, pattern: str, socket_name: str) -> None:
    """Remove what others have left beside a directory that was made just now.

    Only directories of this user, older than a start takes, in which nobody listens and nothing
    else lies.

    Args:
        mine: the new directory; its time of change is now, by the clock of its file system.
        pattern: of the directories' names.
        socket_name: of the socket in each.
    """
    now_s = mine.stat().st_mtime
    for directory in mine.parent.glob(pattern):
        with contextlib.suppress(OSError):  # it is somebody else's, or has gone meanwhile
            found = directory.lstat()
            is_old = now_s - found.st_mtime > _LEFT_AFTER_S
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and is_old:
                if _refuses(directory / socket_name):
                    (directory / socket_name).unlink()
                directory.rmdir()  # fails if anything is in it, such as a socket that is served


def _refuses(socket_path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(socket_path)) == errno.ECONNREFUSED
