"""A blueprint that takes more memory than there is."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

import kasmina
from kasmina.blueprints import catalogue

MEAL_BYTES: Final = 2**30
Meal = Callable[[list[Any]], object]
"""Takes memory, or fails to; what it puts into the list, the body keeps."""


class Hungry(nn.Conv2d):
    """Sound until it is given a meal."""

    part: str = ""
    """Of its code, in which every body eats: "init", "forward" or "backward"; or in which its
    output carries no gradient: "detached"."""
    meal: Meal = staticmethod(len)

    def __init__(self, channels: int):
        self.kept: list[Any] = []
        self.reach("init")
        super().__init__(channels, channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        self.reach("forward")
        grown = super().forward(images)
        if Hungry.part == "backward" and grown.requires_grad:
            grown.register_hook(lambda grad: self.reach("backward"))
        return grown.detach() if Hungry.part == "detached" else grown

    def reach(self, part: str) -> None:
        """Eat, if it is time."""
        if Hungry.part == part:
            Hungry.meal(self.kept)


@contextmanager
def eating(part: str, meal: Meal = len) -> Iterator[None]:
    """For a block, every body eats in that part of its code."""
    Hungry.part, Hungry.meal = part, staticmethod(meal)
    try:
        yield
    finally:
        Hungry.part = ""


@contextmanager
def registered() -> Iterator[None]:
    """For a block there is the blueprint "hungry"."""
    held = dict(catalogue._blueprints)
    kasmina.register("hungry", lambda shape: Hungry(shape.channels))
    try:
        yield
    finally:
        catalogue._blueprints.clear()
        catalogue._blueprints.update(held)


def fill(pieces: list[Any]) -> None:
    """Take piece after piece, smaller and smaller, until not a page is left; then ask for more."""
    for size_bytes in (2**20, mmap.PAGESIZE):
        with suppress(OSError):
            while True:
                pieces.append(mmap.mmap(-1, size_bytes))
                pieces[-1].write(b"x" * size_bytes)
    bytearray(MEAL_BYTES)


def raises(error: type[Exception]) -> Meal:
    def meal(kept: list[Any]) -> None:
        raise error("out of memory")

    return meal


AT_ONCE: Final[dict[str, Meal]] = {
    "a tensor": lambda kept: torch.ones(MEAL_BYTES // 4),
    "an array": lambda kept: np.ones(MEAL_BYTES // 8),
    "bytes": lambda kept: bytearray(MEAL_BYTES),
}
"""Each far more than a little memory."""
BIT_BY_BIT: Final[dict[str, Meal]] = {
    "all there is": lambda kept: fill([]),
    "all there is, kept": fill,
}
RAISED: Final[dict[str, Meal]] = {
    "MemoryError": raises(MemoryError),
    "OutOfMemoryError": raises(torch.OutOfMemoryError),
}
