"""The head of an audit trail: how many rows it has and the hash of the last, kept in a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from leyline import RunError
from oona.audit.chain import GENESIS

_SIZE_BYTES: Final = 4096


class Head(NamedTuple):
    """Where a chain ends."""

    num_rows: int = 0
    last_hash: bytes = GENESIS


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file's content, in JSON."""

    num_rows: int
    last_hash: str


def head_path(trail: Path) -> Path:
    """The file beside a trail, such as audit.head beside audit.db."""
    return trail.with_suffix(".head")


def write_head(path: Path, head: Head) -> None:
    """Replace the file, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        content = msgspec.json.encode(_File(head.num_rows, head.last_hash.hex()))
        temporary.write_bytes(msgspec.json.format(content) + b"\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_head(path: Path) -> Head | None:
    """Read the file; None if there is none.

    Raises:
        RunError: it cannot be read or is not such a file.
    """
    try:
        with path.open("rb") as file:
            content = msgspec.json.decode(file.read(_SIZE_BYTES), type=_File)
        return Head(content.num_rows, bytes.fromhex(content.last_hash))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, msgspec.MsgspecError) as error:
        raise RunError(f"{path} is damaged: {error}") from error
