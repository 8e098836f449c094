"""The manifest of a checkpoint: what it holds, why and on what it was written, and its files."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from leyline import CheckpointError
from tolaria.disk import migrations
from tolaria.disk.files import reason
from tolaria.disk.sealed import seal, unseal
from tolaria.disk.surroundings import Surroundings

FILE_NAME: Final = "manifest.json"
_SIZE_BYTES: Final = 16 * 1024 * 1024

Priority = Literal["low", "normal", "high"]
"""How much a checkpoint is worth once newer ones are there."""


class Occasion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When and why a checkpoint was written."""

    epoch: int = 0
    """Epochs that had ended."""
    reason: str = ""
    priority: Priority = "low"
    metrics: dict[str, float] = {}
    """The epoch's finite metrics."""


class StoredSeed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One seed of the stored model: which blueprint, where, and what it is built with."""

    site: str
    seed: str
    blueprint: str
    shape: dict[str, Any]
    """The arguments of the blueprint: `kasmina.SiteShape` as plain values."""
    chunk: tuple[int, int]
    """Which part of the site's channels, of how many."""


class Structure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the stored model is made of, and what its optimizers train."""

    seeds: tuple[StoredSeed, ...] = ()
    groups: tuple[tuple[tuple[str, ...], ...], ...] = ()
    """Names of the parameters, in order, of each group of each optimizer; empty if not stated."""


class FileRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file of a checkpoint must be."""

    size_bytes: int
    blake2b: str


class UnreadableError(CheckpointError):
    """The disk refused to give a file back, which says nothing of what is in it."""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of manifest.json."""

    format: int
    """As it was written; what is read has been brought up to this version's format."""
    step: int
    occasion: Occasion
    surroundings: Surroundings
    structure: Structure
    files: dict[str, FileRecord]

    @property
    def size_bytes(self) -> int:
        """Of all files but the manifest."""
        return sum(file.size_bytes for file in self.files.values())


def sealed(manifest: Manifest) -> bytes:
    """The one spelling of a manifest, with the digest of its content."""
    return seal(msgspec.to_builtins(manifest))


def read_manifest(path: Path) -> Manifest:
    """A checkpoint's manifest; the files it lists are not looked at.

    Raises:
        CheckpointError: it is missing, damaged, or of a format that this version does not read.
    """
    data = read_file(path / FILE_NAME, _SIZE_BYTES)
    try:
        content = unseal(data, required=True)
        return msgspec.convert(migrations.up_to_date(content), Manifest)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{FILE_NAME} is damaged: {error}") from error


class ManifestCache:
    """Manifests that were read before and whose files have not changed since."""

    def __init__(self) -> None:
        self._held: dict[Path, tuple[tuple[int, int, int], Manifest]] = {}

    def read(self, path: Path) -> Manifest:
        """As `read_manifest`; the file is only looked up if it is as it was.

        Raises:
            CheckpointError: as `read_manifest`.
        """
        try:
            status = (path / FILE_NAME).lstat()
        except OSError as error:
            self._held.pop(path, None)
            raise _refused(path / FILE_NAME, error) from error
        key = (status.st_ino, status.st_size, status.st_mtime_ns)
        held = self._held.get(path)
        if held is None or held[0] != key:
            held = self._held[path] = key, read_manifest(path)
        return held[1]

    def keep_only(self, paths: list[Path]) -> None:
        """Forget all others."""
        self._held = {path: held for path, held in self._held.items() if path in paths}


def read_file(file: Path, limit_bytes: int) -> bytes:
    """The bytes of an ordinary file of at most this size.

    Raises:
        UnreadableError: the disk refused.
        CheckpointError: it is missing, of another kind or too large.
    """
    try:
        status = file.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(f"{file.name} is not an ordinary file")
        if status.st_size > limit_bytes:
            raise CheckpointError(
                f"{file.name} has {status.st_size} bytes, more than the {limit_bytes} it may have"
            )
        return file.read_bytes()
    except OSError as error:
        raise _refused(file, error) from error


def _refused(file: Path, error: OSError) -> CheckpointError:
    if isinstance(error, FileNotFoundError):
        return CheckpointError(f"{file.name} is missing")
    kind = CheckpointError if isinstance(error, NotADirectoryError) else UnreadableError
    return kind(f"{file.name} cannot be read: {reason(error)}")
