"""Checkpoints on disk: committed whole or absent, verified before they are read, without pickle.

A checkpoint is a directory step-00000123 with four files: model.safetensors (the state_dict, under
the parameters' own names), state.safetensors (all other tensors), state.json (everything else, as
tolaria.disk.tree packs it) and manifest.json (sizes and digests). The digests detect damage; they
do not prove who wrote a checkpoint, and reading one never runs code.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import safetensors.torch
import torch
from safetensors import SafetensorError

from leyline import CheckpointError, ConfigError
from tolaria.disk import tree
from tolaria.disk.files import DISK, FileOps, reason

_FORMAT: Final = 1
_MODEL: Final = "model.safetensors"
_TENSORS: Final = "state.safetensors"
_SKELETON: Final = "state.json"
_MANIFEST: Final = "manifest.json"
_FILES: Final = (_MODEL, _TENSORS, _SKELETON)
_MANIFEST_SIZE_BYTES: Final = 65536
_TEMPORARY: Final = ".tmp-"
_NAME: Final = re.compile(r"step-(\d{8,18})(?:-(\d{1,9}))?")


class FileRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file of a checkpoint must be."""

    size_bytes: int
    blake2b: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of manifest.json: the files, and the software that wrote them."""

    format: int
    step: int
    torch: str
    """Bits are promised to be the same only on the same version, threads and CPU capability."""
    num_threads: int
    cpu_capability: str
    files: dict[str, FileRecord]
    blake2b: str = ""
    """Of the manifest itself, with this field empty."""


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        directory: where they are; created if missing, and cleaned of what a crash left behind.
        keep: how many are kept, at least 1. Those known to be damaged do not count.
        ops: how files are written.
        read_only: only look; a store of a run that another process writes must be read-only.
    """

    def __init__(
        self, directory: Path, keep: int = 2, ops: FileOps = DISK, *, read_only: bool = False
    ):
        if keep < 1:
            raise ConfigError(f"{keep} checkpoints cannot be kept; keep at least 1")
        self.directory: Final = directory
        self.problems: Final[dict[str, list[str]]] = {}
        """What is wrong, by name of checkpoint, as far as `newest_valid` has looked."""
        self._keep = keep
        self._ops = ops
        self._read_only = read_only
        if read_only:
            return
        try:
            ops.mkdir_with_parents(directory)
            for stale in directory.glob(f"{_TEMPORARY}*"):
                ops.remove_tree(stale)
        except OSError as error:
            raise CheckpointError(f"{directory} cannot be used: {reason(error)}") from error

    def paths(self) -> list[Path]:
        """Every checkpoint, oldest first, sound or not."""
        if not self.directory.is_dir():
            return []
        return sorted((p for p in self.directory.iterdir() if _NAME.fullmatch(p.name)), key=_order)

    def newest_valid(self) -> Path | None:
        """The newest checkpoint without a fault; `problems` says what is wrong with newer ones."""
        for path in reversed(self.paths()):
            found = verify(path)
            if not found:
                return path
            self.problems[path.name] = found
        return None

    def commit(self, name_step: int, state: Mapping[str, Any]) -> Path:
        """Write a checkpoint, then remove those that are no longer to be kept.

        A checkpoint of the same step is replaced (the new one's name gets -2, -3, ...), and later
        ones, which belong to a future that was undone, are removed.

        Args:
            name_step: optimizer steps so far; names the checkpoint.
            state: anything `tolaria.disk.tree.pack` holds; "state_dict" goes to a file of its own.

        Raises:
            CheckpointError: the state holds something a checkpoint cannot, or the disk refused;
                earlier checkpoints are as they were and nothing else is left behind.
        """
        if self._read_only:
            raise CheckpointError(f"{self.directory} is open read-only; open it to write")
        if not 0 <= name_step < 10**18:
            raise CheckpointError(f"{name_step} is no number of steps; it counts from 0")
        contents = _encode(name_step, state)
        path = self._free_path(name_step)
        temporary = self.directory / f"{_TEMPORARY}{path.name}"
        try:
            if temporary.exists():  # an earlier failure that could not be cleaned up
                self._ops.remove_tree(temporary)
            self._write(temporary, contents)
            self._ops.rename(temporary, path)
            self._ops.fsync_dir(self.directory)
        except OSError as error:
            with suppress(OSError):  # after the rename: not surely durable, so it does not count
                if path.exists():
                    self._ops.rename(path, temporary)
            with suppress(OSError):
                self._ops.remove_tree(temporary)
            raise CheckpointError(f"{path} could not be written: {reason(error)}") from error
        self._retire(path)
        return path

    def _write(self, folder: Path, contents: Mapping[str, bytes]) -> None:
        self._ops.mkdir(folder)
        for name, data in contents.items():
            self._ops.write(folder / name, data)
        for name in contents:
            self._ops.fsync(folder / name)
        self._ops.fsync_dir(folder)

    def _free_path(self, step: int) -> Path:
        """The name for a checkpoint of this step: with a number, if there is one already."""
        numbers = [_order(path)[1] for path in self.paths() if _order(path)[0] == step]
        suffix = f"-{max(numbers) + 1}" if numbers else ""
        return self.directory / f"step-{step:08d}{suffix}"

    def _retire(self, newest: Path) -> None:
        """Remove all but the newest few; what cannot be removed waits for the next commit."""
        step, _ = _order(newest)
        earlier = [path for path in self.paths() if _order(path)[0] < step]
        sound = [path for path in earlier if path.name not in self.problems]
        kept = {newest, *sound[max(0, len(sound) - self._keep + 1) :]}
        for path in reversed(self.paths()):  # an undone future first, or a resume would find it
            if path in kept:
                continue
            temporary = path.with_name(f"{_TEMPORARY}{path.name}")
            try:
                self._ops.rename(path, temporary)
                self._ops.remove_tree(temporary)
            except OSError as error:
                self.problems[path.name] = [f"it could not be removed: {reason(error)}"]
                with suppress(OSError):
                    self._ops.remove_tree(temporary)
            else:
                self.problems.pop(path.name, None)


def load(path: Path) -> dict[str, Any]:
    """The state that was committed, verified first; all tensors are on the CPU.

    Raises:
        CheckpointError: what is wrong with the checkpoint, file by file.
    """
    contents, problems = _read(path)
    if problems:
        raise CheckpointError(f"{path} is damaged: {'; '.join(problems)}")
    try:
        skeleton = json.loads(contents[_SKELETON])
        model = safetensors.torch.load(contents[_MODEL])
        tensors = safetensors.torch.load(contents[_TENSORS])
        state = tree.unpack(skeleton["state"], tensors)
        if skeleton["state_dict"] is not None:
            state["state_dict"] = tree.unpack(skeleton["state_dict"], model)
        if not isinstance(state, dict):
            raise CheckpointError(f"it holds a {type(state).__name__}, not a dict")
    except (
        CheckpointError,
        SafetensorError,
        ValueError,
        TypeError,
        KeyError,
        RuntimeError,  # also RecursionError
        AssertionError,  # safetensors, on an empty tensor without an empty axis
    ) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    return state


def verify(path: Path) -> list[str]:
    """What is wrong with a checkpoint, one sentence for each fault; empty when it is sound."""
    return _read(path)[1]


def read_manifest(path: Path) -> Manifest:
    """A checkpoint's manifest; the files it lists are not looked at.

    Raises:
        CheckpointError: it is missing, damaged, or of another format.
    """
    file = path / _MANIFEST
    data = _read_file(file, _MANIFEST_SIZE_BYTES)
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{_MANIFEST} is damaged: {error}") from error
    if _sealed(manifest) != data:
        raise CheckpointError(f"{_MANIFEST} is damaged: its digest does not fit its content")
    if manifest.format != _FORMAT:
        raise CheckpointError(
            f"it is of format {manifest.format} and this version reads {_FORMAT}: "
            "read it with the version that wrote it"
        )
    for name in manifest.files:
        if name not in _FILES:
            raise CheckpointError(
                f"{_MANIFEST} lists {name!r:.200}, which is none of {', '.join(_FILES)}"
            )
    return manifest


def _read(path: Path) -> tuple[dict[str, bytes], list[str]]:
    """Read every file once and check what was read: the sound files, and the faults."""
    contents: dict[str, bytes] = {}
    problems: list[str] = []
    try:
        manifest = read_manifest(path)
    except CheckpointError as error:
        return contents, [str(error)]
    match = _NAME.fullmatch(path.name)
    if match and int(match[1]) != manifest.step:
        problems.append(f"it is the checkpoint of step {manifest.step} under another name")
    for name in _FILES:
        record = manifest.files.get(name)
        if record is None:
            problems.append(f"{_MANIFEST} does not list {name}")
            continue
        try:
            data = _read_file(path / name, record.size_bytes)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        if len(data) != record.size_bytes:
            problems.append(f"{name} has {len(data)} bytes and should have {record.size_bytes}")
        elif _digest(data) != record.blake2b:
            problems.append(f"{name} has other content than was written (its digest differs)")
        else:
            contents[name] = data
    return contents, problems


def _read_file(file: Path, limit_bytes: int) -> bytes:
    """The bytes of an ordinary file of at most this size."""
    try:
        status = file.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(f"{file.name} is not an ordinary file")
        if status.st_size > limit_bytes:
            raise CheckpointError(
                f"{file.name} has {status.st_size} bytes, more than the {limit_bytes} it may have"
            )
        return file.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"{file.name} is missing") from error
    except OSError as error:
        raise CheckpointError(f"{file.name} cannot be read: {reason(error)}") from error


def _encode(step: int, state: Mapping[str, Any]) -> dict[str, bytes]:
    """The bytes of every file of a checkpoint, the manifest last."""
    state_dict = state.get("state_dict")
    model_skeleton, model = tree.pack(state_dict)
    if isinstance(state_dict, Mapping):
        for name, value in state_dict.items():
            if isinstance(value, torch.Tensor) and name not in model:
                model |= tree.pack({name: value})[1]  # tied: other tools look for every name
    # The empty place keeps the order of the state's keys.
    rest = {key: None if key == "state_dict" else value for key, value in state.items()}
    rest_skeleton, tensors = tree.pack(rest)
    skeleton = {"state": rest_skeleton, "state_dict": model_skeleton}
    contents = {
        _MODEL: _tensor_bytes(model),
        _TENSORS: _tensor_bytes(tensors),
        _SKELETON: json.dumps(skeleton, allow_nan=False).encode("ascii"),
    }
    manifest = Manifest(
        format=_FORMAT,
        step=step,
        torch=str(torch.__version__),
        num_threads=torch.get_num_threads(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        files={name: FileRecord(len(data), _digest(data)) for name, data in contents.items()},
    )
    return contents | {_MANIFEST: _sealed(manifest)}


def _tensor_bytes(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """A safetensors file; it refuses tensors that share memory, so all but the first are copied."""
    seen: set[int] = set()
    apart: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    try:
        return safetensors.torch.save(apart)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"tensors could not be written: {error}") from error


def _sealed(manifest: Manifest) -> bytes:
    """The one spelling of a manifest, with the digest of its content."""
    open_manifest = msgspec.structs.replace(manifest, blake2b="")
    digest = _digest(msgspec.json.encode(open_manifest))
    sealed = msgspec.structs.replace(manifest, blake2b=digest)
    return msgspec.json.format(msgspec.json.encode(sealed)) + b"\n"


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=32).hexdigest()


def _order(path: Path) -> tuple[int, int]:
    """The step of a checkpoint, and which one of that step it is."""
    match = _NAME.fullmatch(path.name)
    assert match, path
    return int(match[1]), int(match[2] or 1)
