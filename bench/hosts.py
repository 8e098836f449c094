"""Small hosts and noise to learn, for the benches that race candidates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

BATCH_SIZE = 16

Batch = tuple[Tensor, Tensor]


class Block(nn.Module):
    """Two convolutions with batch norm and a residual connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.second_norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first_norm(self.first(x)).relu()
        return (x + self.second_norm(self.second(hidden))).relu()


class ConvNet(nn.Module):
    """Four residual blocks."""

    sites = ("blocks.0", "blocks.1", "blocks.2", "blocks.3")
    shape = (1, 8, 8)

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.blocks = nn.ModuleList([Block(channels) for _ in range(4)])
        self.head = nn.Linear(channels, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class Encoder(nn.Module):
    """Four transformer layers."""

    sites = ("layers.layers.0", "layers.layers.1", "layers.layers.2", "layers.layers.3")
    shape = (8, 8)

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embedding = nn.Linear(8, width)
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 4)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.embedding(x)).mean(1))


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """The loss of a (inputs, labels) batch."""
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def batches(num: int, shape: tuple[int, ...], rng_seed: int) -> list[Batch]:
    """Noise with one of four patterns, as it is or negated, for the class."""
    patterns = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0)).sign()
    generator = torch.Generator().manual_seed(rng_seed)
    classes = torch.randint(4, (num, BATCH_SIZE), generator=generator)
    signs = torch.randint(2, (num, BATCH_SIZE, *[1] * len(shape)), generator=generator) * 2.0 - 1.0
    noise = torch.randn(num, BATCH_SIZE, *shape, generator=generator)
    return list(zip(noise + 0.5 * signs * patterns[classes], classes, strict=True))
