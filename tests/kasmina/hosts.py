"""Small hosts of every kind. Imports nothing of Esper: an export must load without it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn


def conv_net() -> nn.Sequential:
    """A Sequential that holds leaves and a Sequential that is a site itself."""
    return nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(1, 8, 3, padding=1),
            act=nn.ReLU(),
            block=nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            head=nn.Linear(8, 4),
        )
    )


class LSTMNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 16, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0])


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    return nn.TransformerEncoder(layer, 2)


class Residual(nn.Module):
    """Blocks inside a block, with running statistics and dropout."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.drop = nn.Dropout(0.2)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return x + scale * self.drop(self.norm(self.conv(x)).relu())


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.blocks = nn.ModuleList([Residual(), Residual()])
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class Conv1dNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 8, 3, padding=1)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x)).relu().mean(-1))


class Host(NamedTuple):
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    """Shape of an input, batch first."""
    site: str
    """One of its sites."""

    def example(self, batch: int | None = None) -> Tensor:
        generator = torch.Generator().manual_seed(7)
        return torch.randn(batch or self.shape[0], *self.shape[1:], generator=generator)


HOSTS = {
    "conv_net": Host(conv_net, (4, 1, 6, 6), "stem"),
    "sequential_site": Host(conv_net, (4, 1, 6, 6), "block"),
    "lstm": Host(LSTMNet, (4, 5, 6), "head"),
    "transformer": Host(transformer, (4, 5, 16), "layers.0"),
    "resnet": Host(ResNet, (4, 1, 6, 6), "blocks.0"),
    "conv1d": Host(Conv1dNet, (4, 2, 9), "norm"),
}
