"""A byte-level language model of the standard library's own source."""

from __future__ import annotations

import hashlib
import sysconfig
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.growth.task import Task
from tolaria.data.splits import Examples, Splits

_CONTEXT = 64
_NUM_TRAIN = 1_000_000
_NUM_HELD_OUT = 100_000
_WIDTH = 48
_NUM_HEADS = 4
_NUM_BYTES = 256


def byte_model(*, short: bool) -> Task:
    """1 MB to train on and 100 kB each for val and test, cut by whole windows."""
    text, digest = standard_library()
    return Task(
        name="bytes",
        splits=_splits(text),
        host=lambda: Transformer(_WIDTH, num_blocks=1),
        widened=lambda width: Transformer(_NUM_HEADS * width, num_blocks=1),
        hand_picked=lambda rng_seed: Transformer(_WIDTH, num_blocks=2),
        num_spans=80 if short else 120,
        steps_per_span=61,  # a sixteenth of an epoch
        batch_size=16,
        learning_rates=(1e-3, 3e-3, 9e-3),
        num_rng_seeds=3,
        is_short=short,
        unit="bits per byte",
        higher_is_better=False,
        data=f"standard library, {digest}",
    )


def standard_library() -> tuple[Tensor, str]:
    """Its modules' source in the order of a digest of their names, and a digest of all used.

    By name alone one letter would be train and another test.

    Returns:
        The bytes, shape (1,200,000) uint8; the digest, which differs among versions of Python.
    """
    files = sorted(
        Path(sysconfig.get_path("stdlib")).glob("*.py"),
        key=lambda path: hashlib.sha256(path.name.encode()).digest(),
    )
    text = b"".join(path.read_bytes() for path in files)[: _NUM_TRAIN + 2 * _NUM_HELD_OUT]
    return torch.frombuffer(bytearray(text), dtype=torch.uint8), hashlib.sha256(text).hexdigest()


def _splits(text: Tensor) -> Splits:
    """Three stretches of the text, each in windows that do not overlap."""
    parts = text.long().split([_NUM_TRAIN, _NUM_HELD_OUT, _NUM_HELD_OUT])
    return Splits(*(_windows(part) for part in parts))


def _windows(text: Tensor) -> Examples:
    """Windows of 64 bytes, and for each byte the one that follows."""
    num = (len(text) - 1) // _CONTEXT
    inputs = text[: num * _CONTEXT].view(num, _CONTEXT)
    return Examples(inputs, text[1 : num * _CONTEXT + 1].view(num, _CONTEXT))


class Transformer(nn.Module):
    """Map (n, up to 64) bytes to logits (n, up to 64, 256) of the bytes that follow."""

    def __init__(self, width: int, *, num_blocks: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(_NUM_BYTES, width)
        self.position = nn.Parameter(0.02 * torch.randn(_CONTEXT, width))
        self.blocks = nn.ModuleList([Block(width) for _ in range(num_blocks)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, _NUM_BYTES)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.embedding(x) + self.position[: x.shape[1]]
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(self.norm(hidden))


class Block(nn.Module):
    """Causal attention and two layers for each position, each added to what it saw."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = CausalAttention(width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class CausalAttention(nn.Module):
    """Four heads; each position sees itself and those before it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.joint = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.register_buffer("later", torch.ones(_CONTEXT, _CONTEXT).triu(1).bool())

    def forward(self, x: Tensor) -> Tensor:
        num, length, width = x.shape
        heads = self.joint(x).view(num, length, 3, _NUM_HEADS, -1).permute(2, 0, 3, 1, 4)
        query, key, value = heads.unbind()
        # Written out, because torch's FLOP counter does not know the fused kernel of the CPU.
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        scores = scores.masked_fill(self.later[:length, :length], -torch.inf)
        return self.out((scores.softmax(-1) @ value).transpose(1, 2).reshape(num, length, width))
