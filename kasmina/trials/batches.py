"""Batches of any nesting: keep a copy, cut into equal pieces, bound how many are kept."""

from __future__ import annotations

import copy
from collections import UserDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

_DICTS: Final = (dict, UserDict)
"""Mappings of which a shallow copy shares no storage with the original."""


def map_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """Apply a function to every tensor of a nested list, tuple or mapping; the rest is kept.

    Dicts of a class of their own keep it, for a tokenizer's are read by attributes; any other
    mapping becomes a dict.
    """
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        items = {key: map_tensors(function, item) for key, item in value.items()}
        return _refilled(value, items) if isinstance(value, _DICTS) else items
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(function, item) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(function, item) for item in value)
    return value


def _refilled(value: Any, items: dict[Any, Any]) -> Any:
    """A copy of a dict with other values under the same keys."""
    copied = copy.copy(value)
    for key, item in items.items():
        copied[key] = item
    return copied


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor of a nested batch, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []


def keep(batch: Any) -> Any:
    """A detached copy, so that a loader which reuses its memory cannot change it."""
    return map_tensors(lambda tensor: tensor.detach().clone(), batch)


def size_bytes(batch: Any) -> int:
    """Bytes of all tensors of a batch."""
    return sum(tensor.nbytes for tensor in tensors_in(batch))


def is_finite(batch: Any) -> bool:
    """Whether every floating tensor of a batch is free of NaN and infinity."""
    return all(bool(torch.isfinite(t).all()) for t in tensors_in(batch) if t.is_floating_point())


def pieces(batch: Any, num_pieces: int) -> list[Any]:
    """Cut a batch along its first axis into equal pieces, the remainder dropped.

    Paired differences over pieces give a standard error even when only a few batches were kept.
    A batch whose tensors do not share their first size stays whole.
    """
    sizes = {tensor.shape[0] if tensor.ndim else 0 for tensor in tensors_in(batch)}
    if len(sizes) != 1:
        return [batch]
    length = sizes.pop() // num_pieces
    if length < 1:
        return [batch]

    def piece(start: int) -> Any:
        return map_tensors(lambda tensor: tensor[start : start + length], batch)

    return [piece(start) for start in range(0, length * num_pieces, length)]


def joined(batch: Any, cut_up: Sequence[Any]) -> Any:
    """The rows of a batch that its pieces are made of."""
    length = sum(tensors_in(piece)[0].shape[0] for piece in cut_up)
    return map_tensors(lambda tensor: tensor[:length], batch)


class BatchBuffer:
    """The first batches of an epoch, bounded in number and bytes."""

    def __init__(self, max_batches: int, max_size_bytes: int):
        self._max_batches = max_batches
        self._max_size_bytes = max_size_bytes
        self._batches: list[Any] = []
        self._size_bytes = 0

    def offer(self, batch: Any) -> None:
        """Keep a copy of a batch if there is room."""
        if len(self._batches) >= self._max_batches:
            return
        batch_size_bytes = size_bytes(batch)
        if self._size_bytes + batch_size_bytes > self._max_size_bytes:
            return
        self._batches.append(keep(batch))
        self._size_bytes += batch_size_bytes

    def clear(self) -> None:
        """Forget every batch."""
        self._batches, self._size_bytes = [], 0

    def batches(self) -> list[Any]:
        """What was kept, in order of arrival."""
        return list(self._batches)
