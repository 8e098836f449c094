"""The arena: flat memory, laid out once, into which a run's tensors are copied again and again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

_ALIGNMENT_BYTES: Final = 64
_GRAIN_SIZE: Final = 32768
"""Elements from which torch splits one copy among its threads."""
_PLAIN: Final = (Tensor, nn.Parameter, nn.Buffer)
_BITS: Final = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""What numpy reads the bits of a type as that it does not know, by its size in bytes."""


class Side:
    """One whole copy of some tensors: a flat buffer on each device, and a view for each tensor.

    Sparse, quantized and other tensors that are no plain block of memory are copied one by one.
    """

    def __init__(self) -> None:
        self._layout: list[Any] | None = None
        self._flat: dict[torch.device, Tensor] = {}
        self._views: dict[str, Tensor] = {}
        self._loose: dict[str, Tensor] = {}

    def __iter__(self) -> Iterator[str]:
        yield from self._views
        yield from self._loose

    def __getitem__(self, name: str) -> Tensor:
        return self._views[name] if name in self._views else self._loose[name]

    @property
    def size_bytes(self) -> int:
        """Memory of the flat buffers."""
        return sum(flat.nbytes for flat in self._flat.values())

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy tensors in; memory is asked for only if what there is does not suffice."""
        layout = [(n, t.shape, t.stride(), t.dtype, t.device) for n, t in _flat_ones(tensors)]
        if layout != self._layout:
            self._layout = None  # until the views fit again
            self._lay_out(dict(_flat_ones(tensors)))
            self._layout = layout
        copy(list(self._views.values()), [tensors[name] for name in self._views])
        self._loose = {n: t.detach().clone() for n, t in tensors.items() if n not in self._views}

    def pour(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy back into those of `tensors` that are held; their addresses stay."""
        names = [name for name in self if name in tensors]
        copy([tensors[name] for name in names], [self[name] for name in names])

    def _lay_out(self, tensors: Mapping[str, Tensor]) -> None:
        sizes: dict[torch.device, int] = {}
        offsets = {}
        for name, tensor in tensors.items():
            offsets[name] = sizes.get(tensor.device, 0)
            padded = -(-tensor.nbytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
            sizes[tensor.device] = offsets[name] + padded
        self._views = {}
        for device, size_bytes in sizes.items():
            held = self._flat.get(device)
            if held is None or held.numel() < size_bytes:
                self._flat[device] = _allocate(size_bytes, device)
        for name, tensor in tensors.items():
            block = self._flat[tensor.device][offsets[name] : offsets[name] + tensor.nbytes]
            # With the strides that the tensor has, if it is dense: a copy is then one move.
            strides = torch.empty_like(tensor, device="meta").stride()
            self._views[name] = block.view(tensor.dtype).as_strided(tensor.shape, strides)


class Arena:
    """Sides that take turns: one that is in use is never written to.

    So a copy that is cut short, by whatever error, leaves the last whole one as it is.
    """

    def __init__(self) -> None:
        self._free: list[Side] = []

    def take(self, tensors: Mapping[str, Tensor]) -> Side:
        """A whole copy of tensors, in memory of its own until it is released."""
        side = self._free.pop() if self._free else Side()
        try:
            side.fill(tensors)
        except BaseException:
            self._free.append(side)
            raise
        return side

    def release(self, side: Side) -> None:
        """Let a copy's memory be used again."""
        self._free.append(side)


@torch.no_grad()
def copy(into: Sequence[Tensor], out_of: Sequence[Tensor]) -> None:
    """Copy tensors into others of the same shape and type, on as few threads as is fast.

    Torch splits every large copy among its threads and waits for all of them: on contended cores
    that was up to thirty times as slow as one thread. So a large tensor is copied by numpy then.
    """
    alike: dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], list[Tensor]]] = {}
    by_numpy = torch.get_num_threads() > 1
    written = []
    for target, source in zip(into, out_of, strict=True):
        if by_numpy and target.numel() >= _GRAIN_SIZE and _is_numpys(target, source):
            _array(target)[...] = _array(source)
            written.append(target)
        else:
            targets, sources = alike.setdefault((target.device, target.dtype), ([], []))
            targets.append(target)
            sources.append(source)
    for targets, sources in alike.values():
        torch._foreach_copy_(targets, sources)
    if written:
        torch.autograd.graph.increment_version(written)


def _allocate(size_bytes: int, device: torch.device) -> Tensor:
    if device.type == "cpu":
        # By numpy, which asks the kernel for huge pages: a tenth faster at a hundred megabytes.
        return torch.from_numpy(np.empty(size_bytes, dtype=np.uint8))
    return torch.empty(size_bytes, dtype=torch.uint8, device=device)


def _is_numpys(*tensors: Tensor) -> bool:
    return all(t.is_cpu and _is_flat(t) and t.element_size() in _BITS for t in tensors)


def _array(tensor: Tensor) -> Any:
    return tensor.detach().view(_BITS[tensor.element_size()]).numpy()


def _flat_ones(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    return ((name, tensor) for name, tensor in tensors.items() if _is_flat(tensor))


def _is_flat(tensor: Tensor) -> bool:
    """Whether a tensor is a block of plain numbers."""
    return (
        type(tensor) in _PLAIN
        and tensor.layout is torch.strided
        and not (tensor.is_quantized or tensor.is_meta or tensor.is_conj() or tensor.is_neg())
    )
