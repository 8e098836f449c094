"""Equality by value, where NaN equals NaN: a buffer may hold it and not have moved."""

from __future__ import annotations

import torch
from torch import Tensor


def changed(before: Tensor, after: Tensor) -> Tensor:
    """Which elements are other than before; bool, of their shape."""
    return (before != after) & ~(before.isnan() & after.isnan())


def is_same(before: Tensor, after: Tensor) -> bool:
    """Whether shape and all elements are those of before."""
    if torch.equal(before, after):
        return True
    return before.shape == after.shape and not bool(changed(before, after).any())
