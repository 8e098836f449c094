"""The small file in a run directory that says where the run's events can be read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

FILE_NAME: Final = "bus.json"
_SIZE_BYTES: Final = 16 * 1024


class RunFile(msgspec.Struct, frozen=True):
    """What the file holds; the URL has no password in it."""

    url: str
    run_id: str


def write(run_dir: Path, content: RunFile) -> None:
    """Write the file, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    temporary = run_dir / f"{FILE_NAME}.{os.getpid()}.tmp"
    try:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(content)) + b"\n")
        temporary.replace(run_dir / FILE_NAME)
    finally:
        temporary.unlink(missing_ok=True)


def read(run_dir: Path) -> RunFile | None:
    """Read the file; None if there is none or it is not one of ours."""
    try:
        with (run_dir / FILE_NAME).open("rb") as file:
            return msgspec.json.decode(file.read(_SIZE_BYTES), type=RunFile)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
