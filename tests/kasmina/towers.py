"""A host with a site, what stands there behind the wall, and the same without the wall."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kasmina.sites.shape import SiteShape
from kasmina.slots.grafted_seed import GraftedSeed
from tests.kasmina.growing import wake

WIDTH = 6


class TwoUses(nn.Module):
    """A body that uses its input twice, so that its gradient is a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Linear(WIDTH, 3)
        self.up = nn.Linear(3, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x).tanh()) * x.sigmoid()


def low_rank() -> nn.Module:
    return nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2, bias=False), nn.Linear(2, WIDTH))


def make(body: nn.Module, *, alpha: float = 0.7, **options: Any) -> GraftedSeed:
    seed = GraftedSeed(
        body, seed="site/0", blueprint="x", shape=SiteShape((4, WIDTH), -1), **options
    )
    seed.blend(alpha)
    return seed


class Plain(nn.Module):
    """The expression without the wall, over the same body."""

    def __init__(self, seed: GraftedSeed) -> None:
        super().__init__()
        self.body = copy.deepcopy(seed.body)
        self.register_buffer("alpha", seed.alpha.clone())

    def forward(self, host: Tensor) -> Tensor:
        return host + (self.alpha * self.body(host)).to(host.dtype)


class Tower(nn.Module):
    """A host with a site between two layers, and what stands at the site."""

    def __init__(self, guest: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.stem = nn.Linear(5, WIDTH)
        self.head = nn.Linear(WIDTH, 2)
        self.guest = guest

    def forward(self, x: Tensor) -> Tensor:
        # In place, as an activation may: the wall's output must bear it.
        return self.head(nn.functional.relu(self.guest(self.stem(x)), inplace=True))


def pair(build: Callable[[], nn.Module] = low_rank, **options: Any) -> tuple[Tower, Tower]:
    """The same host twice: with the wall, and with the plain expression."""
    torch.manual_seed(7)
    seed = make(wake(build()), **options)
    return Tower(seed), Tower(Plain(seed))


def example(**options: Any) -> Tensor:
    return torch.randn(4, 5, generator=torch.Generator().manual_seed(2), **options)


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.linear(x))
