"""The head of an audit trail: how many rows, the hash of the last, and a seal on both."""

from __future__ import annotations

import os
from collections.abc import Sequence
from hmac import compare_digest
from pathlib import Path
from typing import Annotated, Final, NamedTuple, Self

import msgspec

from leyline import RunError
from oona.audit.chain import Chain

_SIZE_BYTES: Final = 4096


class Head(NamedTuple):
    """Where a chain ends."""

    num_rows: int
    last_hash: bytes
    seal: bytes

    @classmethod
    def sealed(cls, chain: Chain, num_rows: int, last_hash: bytes) -> Self:
        """The head of a trail that ends there, with the seal of its chain."""
        return cls(num_rows, last_hash, chain.seal(num_rows, last_hash))

    @classmethod
    def of_table(cls, found: Sequence[object] | None, where: object) -> Self:
        """The head in the one row of the table `trail` of a store.

        Raises:
            RunError: there is no such row, or something else is in it.
        """
        match found:
            case [int(num_rows), bytes(last_hash), bytes(seal)]:
                return cls(num_rows, last_hash, seal)
        raise RunError(
            f"{where}: its table trail {'is empty' if found is None else 'holds something else'}, "
            "so nothing says where the rows end"
        )

    def has_seal_of(self, chain: Chain) -> bool:
        """Whether the chain, and with a key nobody else, has sealed it."""
        return compare_digest(self.seal, chain.seal(self.num_rows, self.last_hash))


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file's content, in JSON."""

    num_rows: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    last_hash: str
    seal: str


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
        content = msgspec.json.encode(_File(head.num_rows, head.last_hash.hex(), head.seal.hex()))
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
        return Head(content.num_rows, bytes.fromhex(content.last_hash), bytes.fromhex(content.seal))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, msgspec.MsgspecError) as error:
        raise RunError(f"{path} is damaged: {error}") from error
