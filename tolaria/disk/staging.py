"""A checkpoint's content at rest: copied out of the live state once, into memory that is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from kasmina.stored_seeds import described_seeds
from leyline import CheckpointError
from tolaria.disk import tensor_file, tree
from tolaria.disk.manifest import StoredSeed
from tolaria.disk.tensor_file import TensorFile

MODEL: Final = "model.safetensors"
TENSORS: Final = "state.safetensors"
SKELETON: Final = "state.json"
FILES: Final = (MODEL, TENSORS, SKELETON)
_ROOM: Final = 1.125
"""Memory asked for, as a multiple of what is needed now: a growing model needs more soon."""


@dataclass(frozen=True)
class Staged:
    """What will be written: nothing of it changes when training goes on."""

    tensors: dict[str, memoryview]
    """The files of tensors. They are valid until the next state is staged."""
    skeleton: dict[str, tree.Json]
    seeds: tuple[StoredSeed, ...]

    def files(self) -> dict[str, bytes | memoryview]:
        """Every file but the manifest, in the order they are written."""
        return {**self.tensors, SKELETON: json.dumps(self.skeleton, allow_nan=False).encode()}


class Staging:
    """Host memory for one staged state, kept between saves and enlarged when a model has grown."""

    def __init__(self) -> None:
        self._buffer = torch.empty(0, dtype=torch.uint8)
        self._signatures: dict[str, tensor_file.Signature] = {}
        self._files: dict[str, TensorFile] = {}

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        return self._buffer.nbytes

    def stage(self, state: Mapping[str, Any]) -> Staged:
        """Copy a state; what was staged before is overwritten.

        Args:
            state: anything `tolaria.disk.tree.pack` holds; "state_dict" goes to a file of its own.

        Raises:
            CheckpointError: it holds something else, named by its place.
        """
        state_dict = state.get("state_dict")
        model_skeleton, model = tree.pack(state_dict)
        seeds: tuple[StoredSeed, ...] = ()
        if isinstance(state_dict, Mapping):
            seeds = _seeds(state_dict)
            for name, value in state_dict.items():
                if isinstance(value, torch.Tensor) and name not in model:
                    model |= tree.pack({name: value})[1]  # tied: other tools look for every name
        # The empty place keeps the order of the state's keys.
        rest = {key: None if key == "state_dict" else value for key, value in state.items()}
        rest_skeleton, tensors = tree.pack(rest)
        files = self._copy({MODEL: model, TENSORS: tensors})
        return Staged(files, {"state": rest_skeleton, "state_dict": model_skeleton}, seeds)

    def release(self) -> None:
        """Give the memory back."""
        self._files, self._signatures = {}, {}
        self._buffer = torch.empty(0, dtype=torch.uint8)

    def _copy(self, files: Mapping[str, Mapping[str, torch.Tensor]]) -> dict[str, memoryview]:
        signatures = {name: tensor_file.signature(tensors) for name, tensors in files.items()}
        on_devices = {t.device for tensors in files.values() for t in tensors.values() if t.is_cuda}
        if signatures != self._signatures:
            self._lay_out(files, pinned=bool(on_devices))
            self._signatures = signatures
        for name, tensors in files.items():
            self._files[name].fill(tensors)
        for device in on_devices:
            torch.cuda.current_stream(device).synchronize()
        return {name: file.memory for name, file in self._files.items()}

    def _lay_out(self, files: Mapping[str, Mapping[str, torch.Tensor]], *, pinned: bool) -> None:
        """Give each file its place, in the memory that is held if it is large enough."""
        layouts = {name: tensor_file.lay_out(tensors) for name, tensors in files.items()}
        needed = sum(tensor_file.aligned(layout.size_bytes) for layout in layouts.values())
        if needed > self._buffer.nbytes:
            self.release()  # never hold both
            room = tensor_file.aligned(int(needed * _ROOM))
            self._buffer = torch.empty(room, dtype=torch.uint8, pin_memory=pinned)
        self._files = {}
        at = 0
        for name, layout in layouts.items():
            place = self._buffer[at : at + layout.size_bytes]
            self._files[name] = TensorFile(files[name], layout, place)
            at += tensor_file.aligned(layout.size_bytes)


def refuse_many(contents: Mapping[str, bytes]) -> None:
    """Refuse a file with more tensors than its skeleton has places for: each costs a kilobyte.

    Every entry of a header is an object, and so is every place; braces in a name are in both.

    Raises:
        CheckpointError: it has more.
    """
    most = contents[SKELETON].count(b"{")
    for name in (MODEL, TENSORS):
        size_bytes = int.from_bytes(contents[name][:8], "little")
        num = contents[name].count(b"{", 8, 8 + min(size_bytes, len(contents[name]))) - 1
        if num > most:
            raise CheckpointError(f"{name} holds {num} tensors, of which {SKELETON} names {most}")


def _seeds(state_dict: Mapping[str, Any]) -> tuple[StoredSeed, ...]:
    """The seeds that a model's state describes."""
    try:
        found = described_seeds(state_dict)
    except CheckpointError as error:
        raise CheckpointError(f"state_dict: {error}") from error
    return tuple(
        StoredSeed(site, seed.seed, seed.blueprint, seed.shape.to_dict(), seed.chunk)
        for (site, _), seed in found.items()
    )
