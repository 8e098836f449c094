"""The gate around a group's kernel: gradients that are not finite stop there, and tell on a seed.

Groups hold built-in bodies alone, which do not raise in backward; but values may overflow. A wall
around each seed would cost more than the kernel itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Blame = Callable[[Tensor], None]
"""Told which of the seeds have spoilt a gradient: bool [num]."""


class Gate:
    """One call of a group's kernel: values pass unchanged, spoilt gradients become zeros.

    On the CPU the seeds to blame are named in the same backward pass. Elsewhere nothing waits for
    the answer: every row that is not finite becomes zeros, and nobody is named.
    """

    def __init__(self, blame: Blame):
        self._blame = blame
        self._incoming: Tensor | None = None

    def into(self, values: Tensor, axis: int, num: int) -> Tensor:
        """Let values into the kernel; `axis` is made of one equal part for each of `num` seeds."""
        gated: Tensor = _Into.apply(values, self, axis, num)  # type: ignore[no-untyped-call]
        return gated

    def out_of(self, values: Tensor) -> Tensor:
        """Let the kernel's result out."""
        gated: Tensor = _OutOf.apply(values, self)  # type: ignore[no-untyped-call]
        return gated

    def arrive(self, grad: Tensor) -> None:
        """A gradient has come to the kernel's result."""
        self._incoming = grad.detach()

    def cleared(self, grad: Tensor, axis: int, num: int) -> Tensor:
        """A gradient on its way out of the kernel, without the parts that are spoilt."""
        on_cpu = grad.device.type == "cpu"
        # In float16 an overflow is the gradient scaler's to find.
        if grad.dtype is torch.float16 or (on_cpu and _is_finite(grad)):
            return grad
        if on_cpu and self._incoming is not None and not _is_finite(self._incoming):
            return grad  # it came so
        parts = torch.unflatten(grad, axis, (num, -1))
        others = [n for n in range(parts.ndim) if n != axis % grad.ndim]
        sound = torch.isfinite(parts).all(dim=others, keepdim=True)
        if on_cpu:
            self._blame(~sound.flatten())
        return torch.where(sound, parts, 0.0).flatten(axis % grad.ndim, axis % grad.ndim + 1)


def _is_finite(grad: Tensor) -> bool:
    """At the cost of a norm, unless its squares overflow."""
    return math.isfinite(torch.linalg.vector_norm(grad)) or bool(torch.isfinite(grad).all())


class _Into(torch.autograd.Function):
    """The identity; its backward clears the gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, gate: Gate, axis: int, num: int) -> Tensor:
        ctx.gate, ctx.axis, ctx.num = gate, axis, num
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return ctx.gate.cleared(grad, ctx.axis, ctx.num), None, None, None


class _OutOf(torch.autograd.Function):
    """The identity; its backward notes the gradient that arrives."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, gate: Gate) -> Tensor:
        ctx.gate = gate
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        ctx.gate.arrive(grad)
        return grad, None
