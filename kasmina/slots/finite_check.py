"""Finiteness of what a seed puts out: looked at in the same call, or late where that would wait."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor


def _norm(tensor: Tensor) -> Tensor:
    """0-dim; not finite for NaN, infinity, and values whose squares overflow (float32: 1e19).

    The next norm layer or optimizer squares them, so they would only be NaN a little later.
    """
    dtype = torch.float32 if tensor.dtype is torch.float16 else None
    norm: Tensor = torch.linalg.vector_norm(tensor, dtype=dtype)
    return norm


class FiniteCheck:
    """Tells whether values are spoilt: not finite or absurdly large, though their source is not.

    On the CPU the answer is a bool, at once. Elsewhere it is a flag that stays on the device, so
    that no call waits for it; `either` picks by it there, and `seen` reads it in the next call.

    Args:
        always_late: on the CPU as on a device.
    """

    def __init__(self, *, always_late: bool = False):
        self._always_late = always_late
        self._flag: Tensor | None = None
        self._copy: Tensor | None = None
        self._copied: Any = None

    def __reduce__(self) -> Any:
        # A copy of the seed has no work under way, and a device's event cannot be copied.
        return type(self)._anew, (self._always_late,)

    @classmethod
    def _anew(cls, always_late: bool) -> Self:
        return cls(always_late=always_late)

    @torch.no_grad()
    def spoilt(self, values: Sequence[Tensor], source: Tensor) -> bool | Tensor:
        """Whether any of `values` is spoilt, or on a device has been before: bool or 0-dim flag."""
        if source.is_meta:
            return False
        if source.device.type == "cpu" and not self._always_late:
            return _spoilt_now(values, source)
        sound = torch.isfinite(torch.stack([_norm(value) for value in values])).all()
        bad = torch.isfinite(_norm(source)) & ~sound
        if self._flag is not None and self._flag.device == source.device:
            bad |= self._flag
        self._flag = bad
        self._send(bad)
        return bad

    def _send(self, flag: Tensor) -> None:
        if not flag.is_cuda:
            self._copy = flag
            return
        if self._copied is None:
            self._copy = torch.empty((), dtype=torch.bool, pin_memory=True)
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        assert self._copy is not None
        self._copy.copy_(flag, non_blocking=True)
        self._copied.record()

    def seen(self) -> bool:
        """Whether an earlier call was spoilt; waits for that call's work alone, not for later."""
        if self._copy is None:
            return False
        if self._copied is not None:
            self._copied.synchronize()
        return bool(self._copy)


def _spoilt_now(values: Sequence[Tensor], source: Tensor) -> bool:
    return not all(math.isfinite(_norm(v)) for v in values) and math.isfinite(_norm(source))


def either(spoilt: bool | Tensor, instead: Tensor, values: Tensor) -> Tensor:
    """`instead` where the values are spoilt, bit for bit, else the values."""
    if isinstance(spoilt, bool):
        return instead if spoilt else values
    return torch.where(spoilt, instead, values)
