"""Tensors laid out as a safetensors file in memory of ours, so that they are copied only once.

The library builds the same bytes, in new memory at every save, after copies of its own.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

TYPES: Final[Mapping[torch.dtype, str]] = MappingProxyType(
    {
        torch.float64: "F64",
        torch.float32: "F32",
        torch.float16: "F16",
        torch.bfloat16: "BF16",
        torch.float8_e4m3fn: "F8_E4M3",
        torch.float8_e5m2: "F8_E5M2",
        torch.complex64: "C64",
        torch.bool: "BOOL",
        torch.int64: "I64",
        torch.int32: "I32",
        torch.int16: "I16",
        torch.int8: "I8",
        torch.uint64: "U64",
        torch.uint32: "U32",
        torch.uint16: "U16",
        torch.uint8: "U8",
    }
)
"""The types that every reader of safetensors can name."""
_KNOWN_TO_NUMPY: Final = TYPES.keys() - {torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2}
_LENGTH: Final = struct.Struct("<Q")
_ALIGNMENT_BYTES: Final = 8


Signature = tuple[tuple[str, torch.dtype, torch.Size], ...]


def signature(tensors: Mapping[str, torch.Tensor]) -> Signature:
    """What a file's layout depends on: names, types and shapes."""
    return tuple((name, tensor.dtype, tensor.shape) for name, tensor in tensors.items())


@dataclass(frozen=True)
class Layout:
    """Where each tensor goes in a file."""

    head: bytes
    """The length of the header, and the header."""
    spans: tuple[tuple[str, int, int], ...]
    """Each tensor's name, start and end, in bytes from the file's start."""
    size_bytes: int


def lay_out(tensors: Mapping[str, torch.Tensor]) -> Layout:
    """Plan a file; tensors of wide types come first, which keeps each one aligned.

    Args:
        tensors: of `TYPES`, by name.
    """
    entries: dict[str, object] = {}
    spans = []
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].itemsize):
        start, end = end, end + tensor.nbytes
        spans.append((name, start, end))
        shape = list(tensor.shape)
        entries[name] = {"dtype": TYPES[tensor.dtype], "shape": shape, "data_offsets": [start, end]}
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % _ALIGNMENT_BYTES)
    head = _LENGTH.pack(len(header)) + header
    at = len(head)
    return Layout(head, tuple((name, at + s, at + e) for name, s, e in spans), at + end)


class TensorFile:
    """A file's bytes in memory, filled again and again with tensors of one signature.

    Args:
        tensors: of that signature.
        layout: of them.
        buffer: uint8 on the CPU, as long as the layout and aligned to 8 bytes.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], layout: Layout, buffer: torch.Tensor):
        self.memory: memoryview = buffer.numpy().data
        self.memory[: len(layout.head)] = layout.head
        self._targets: list[tuple[str, torch.Tensor, NDArray[Any] | None]] = []
        for name, start, end in layout.spans:
            tensor = tensors[name]
            if start < end:
                target = buffer[start:end].view(tensor.dtype).view(tensor.shape)
                array = target.numpy() if tensor.dtype in _KNOWN_TO_NUMPY else None
                self._targets.append((name, target, array))

    def fill(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Copy the tensors in; copies from a device into pinned memory are not waited for."""
        for name, target, array in self._targets:
            tensor = tensors[name]
            if array is None or tensor.device.type != "cpu":
                target.copy_(tensor, non_blocking=True)
            else:
                # numpy copies on one thread; torch's would meet at a barrier for each tensor, which
                # on busy cores takes far longer than the copy.
                np.copyto(array, tensor.numpy())


def aligned(size_bytes: int) -> int:
    """The next size after which another file may begin."""
    return math.ceil(size_bytes / _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
