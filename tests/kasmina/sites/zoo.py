"""Hosts whose sites take some telling: tuples, sequences, images with the channels last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

BATCH, LENGTH, WIDTH, NUM_TOKENS = 3, 7, 8, 11


class TokenModel(nn.Module):
    """Tokens to next-token scores through an encoder, looking ahead or not."""

    def __init__(self, *, causal: bool, batch_first: bool = True) -> None:
        super().__init__()
        self.tokens = nn.Embedding(NUM_TOKENS, WIDTH)
        self.places = nn.Embedding(LENGTH, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, NUM_TOKENS)
        self.causal, self.sequence_axis = causal, 1 if batch_first else 0

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[self.sequence_axis]
        places = self.places(torch.arange(length))
        places = places[None] if self.sequence_axis else places[:, None]
        mask = nn.Transformer.generate_square_subsequent_mask(length) if self.causal else None
        embedded = self.tokens(tokens) + places
        return self.head(self.encoder(embedded, mask=mask, is_causal=self.causal))


class TiedModel(nn.Module):
    """Token scores from the embedding's own weights."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(NUM_TOKENS, WIDTH)
        self.body = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, NUM_TOKENS, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.body(self.tokens(tokens)).relu())


class Translator(nn.Module):
    """An encoder that looks everywhere, and a decoder that looks at it but not ahead."""

    def __init__(self, *, target_first: bool) -> None:
        super().__init__()
        self.source = nn.Embedding(NUM_TOKENS, WIDTH)
        self.target = nn.Embedding(NUM_TOKENS, WIDTH)
        self.body = nn.Transformer(WIDTH, 2, 1, 1, 16, batch_first=True)
        self.target_first = target_first

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        if self.target_first:
            embedded, encoded = self.target(target), self.source(source)
        else:
            encoded, embedded = self.source(source), self.target(target)
        return self.body(encoded, embedded, tgt_mask=mask)


class WaveNet(nn.Module):
    """Dilated convolutions, padded on the left alone or on both sides."""

    def __init__(self, *, causal: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv1d(4, 4, 3, dilation=d) for d in (1, 2, 4)])
        self.head = nn.Conv1d(4, 2, 1)
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            both = 2 * layer.dilation[0]
            padding = (both, 0) if self.causal else (both // 2, both // 2)
            x = x + layer(functional.pad(x, padding)).relu()
        return self.head(x)


class Recurrent(nn.Module):
    """A projection, a recurrent layer that also returns its state, a head; transposed within."""

    def __init__(
        self,
        kind: type[nn.RNNBase] = nn.LSTM,
        *,
        bidirectional: bool = False,
        batch_first: bool = True,
        transposes: bool = False,
    ) -> None:
        super().__init__()
        self.project = nn.Linear(5, 6)
        self.memory = kind(6, WIDTH, bidirectional=bidirectional, batch_first=batch_first)
        self.head = nn.Linear(WIDTH * (1 + bidirectional), 3)
        self.transposes = transposes

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)
        output, state = self.memory(x.transpose(0, 1) if self.transposes else x)
        last = state[0] if isinstance(state, tuple) else state
        return self.head(output) + last.mean()


class Attending(nn.Module):
    """Attention whose weights are used as well."""

    def __init__(self, *, batch_first: bool = True) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=batch_first)
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mixed, weights = self.attention(x, x, x, need_weights=True)
        return self.head(mixed), weights


class PatchMixer(nn.Module):
    """Images with the channels last inside, as in a Swin transformer, and first outside."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 2, stride=2)
        self.block = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU())
        self.mix = Permuted()
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.patches(x).permute(0, 2, 3, 1))
        x = self.mix(x.permute(0, 3, 1, 2))
        return self.head(x.mean((2, 3)))


class Permuted(nn.Module):
    """A ConvNeXt block: channels first outside, its last layer with the channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)
        self.pointwise = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.pointwise(self.depthwise(x).permute(0, 2, 3, 1))
        return x + mixed.permute(0, 3, 1, 2)


@dataclass
class Output(OrderedDict[str, Any]):
    """As Hugging Face's ModelOutput: a dataclass and a mapping of those fields that are set."""

    hidden: Tensor | None = None
    cache: Any = None
    scores: Tensor | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) is not None:
                super().__setitem__(field.name, getattr(self, field.name))

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else tuple(self.values())[key]


@dataclass(frozen=True)
class Plain:
    hidden: Tensor
    cache: Any = None


class Pair(NamedTuple):
    hidden: Tensor
    cache: Any = None


MAKERS: dict[str, Callable[[Tensor, Any], Any]] = {
    "tuple": lambda hidden, cache: (hidden, cache),
    "list": lambda hidden, cache: [hidden, cache],
    "named tuple": Pair,
    "dict": lambda hidden, cache: {"hidden": hidden, "cache": cache},
    "ordered dict": lambda hidden, cache: OrderedDict(hidden=hidden, cache=cache),
    "dataclass": Plain,
    "model output": lambda hidden, cache: Output(hidden=hidden, cache=cache),
}
"""Ways to return a tensor and something else."""


def hidden_of(output: Any) -> Tensor:
    """As a host takes the first part, whatever it is given."""
    hidden = getattr(output, "hidden", None)
    if hidden is None:
        hidden = output["hidden"] if isinstance(output, dict) else output[0]
    assert isinstance(hidden, Tensor)
    return hidden


def cache_of(output: Any) -> Any:
    cache = getattr(output, "cache", None)
    return cache if cache is not None else output["cache" if isinstance(output, dict) else 1]


class Wrapping(nn.Module):
    """A block that returns more than a tensor, and a host that unpacks it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.block = WrappedBlock(kind)
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        output = self.block(x)
        return self.head(hidden_of(output)) + cache_of(output)["scale"]


class WrappedBlock(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)
        self.kind = kind
        self.cache = {"scale": 2.0}

    def forward(self, x: Tensor) -> Any:
        return MAKERS[self.kind](self.inner(x).relu(), self.cache)


def tokens(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, NUM_TOKENS, shape, generator=generator)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


class Specimen(NamedTuple):
    build: Callable[[], nn.Module]
    example: tuple[Tensor, ...]
    axes: dict[str, tuple[int, int, bool]]
    """For each site its channel axis, its batch axis, and whether it is causal."""


_EMBEDDINGS = {"tokens": (-1, 0, True), "places": (-1, 0, False)}
_BOTH_LAYERS = ("encoder.layers.0", "encoder.layers.1", "head")
_DECODER_PARTS = ("self_attn", "multihead_attn", "linear1", "linear2", "norm1", "norm2", "norm3")
_PARTS = ("self_attn", "linear1", "linear2", "norm1", "norm2")

ZOO = {
    "causal_transformer": Specimen(
        lambda: TokenModel(causal=True),
        (tokens(BATCH, LENGTH),),
        {**_EMBEDDINGS, **dict.fromkeys(_BOTH_LAYERS, (-1, 0, True))},
    ),
    "transformer": Specimen(
        lambda: TokenModel(causal=False),
        (tokens(BATCH, LENGTH),),
        dict.fromkeys((*_EMBEDDINGS, *_BOTH_LAYERS), (-1, 0, False)),
    ),
    "sequence_first_transformer": Specimen(
        lambda: TokenModel(causal=True, batch_first=False),
        (tokens(LENGTH, BATCH),),
        {
            **_EMBEDDINGS,
            "tokens": (-1, 1, True),
            "head": (-1, 1, True),
            **{f"encoder.layers.{n}.{p}": (-1, 1, True) for n in (0, 1) for p in _PARTS},
        },
    ),
    **{
        f"translator_{order}": Specimen(
            partial(Translator, target_first=order == "target_first"),
            (tokens(BATCH, LENGTH), tokens(BATCH, LENGTH - 2)),
            {
                "target": (-1, 0, True),
                **dict.fromkeys(
                    ("source", "body.encoder.layers.0", "body.encoder.norm"), (-1, 0, False)
                ),
                **{f"body.decoder.layers.0.{p}": (-1, 0, True) for p in _DECODER_PARTS},
                "body.decoder.norm": (-1, 0, True),
            },
        )
        for order in ("target_first", "source_first")
    },
    "causal_convolutions": Specimen(
        lambda: WaveNet(causal=True),
        (noise(2, 4, 20),),
        dict.fromkeys(("layers.0", "layers.1", "layers.2", "head"), (1, 0, True)),
    ),
    "convolutions": Specimen(
        lambda: WaveNet(causal=False),
        (noise(2, 4, 20),),
        dict.fromkeys(("layers.0", "layers.1", "layers.2", "head"), (1, 0, False)),
    ),
    "lstm": Specimen(
        Recurrent,
        (noise(BATCH, LENGTH, 5),),
        {"project": (-1, 0, True), "memory": (-1, 0, True), "head": (-1, 0, True)},
    ),
    "gru_both_ways": Specimen(
        lambda: Recurrent(nn.GRU, bidirectional=True, batch_first=False),
        (noise(LENGTH, BATCH, 5),),
        {"project": (-1, 1, False), "memory": (-1, 1, False), "head": (-1, 1, False)},
    ),
    "transposed_rnn": Specimen(
        lambda: Recurrent(nn.RNN, batch_first=False, transposes=True),
        (noise(BATCH, LENGTH, 5),),
        {"project": (-1, 0, True), "memory": (-1, 1, True), "head": (-1, 1, True)},
    ),
    "one_example_sequence_first": Specimen(
        lambda: Recurrent(nn.GRU, batch_first=False),
        (noise(LENGTH, 1, 5),),
        {"project": (-1, 1, True), "memory": (-1, 1, True), "head": (-1, 1, True)},
    ),
    "attention": Specimen(
        lambda: Attending(batch_first=False),
        (noise(LENGTH, BATCH, WIDTH),),
        {"attention": (-1, 1, True), "head": (-1, 1, True)},
    ),
    "images_channels_last": Specimen(
        PatchMixer,
        (noise(2, 3, 12, 12),),
        {
            "patches": (1, 0, False),
            "block": (-1, 0, False),
            "block.0": (-1, 0, False),
            "block.1": (-1, 0, False),
            "mix": (1, 0, False),
            "mix.depthwise": (1, 0, False),
            "mix.pointwise": (-1, 0, False),
            "head": (-1, 0, False),
        },
    ),
    "tied_weights": Specimen(
        TiedModel,
        (tokens(BATCH, LENGTH),),
        dict.fromkeys(("tokens", "body", "head"), (-1, 0, True)),
    ),
    **{
        kind.replace(" ", "_"): Specimen(
            partial(Wrapping, kind),
            (noise(BATCH, LENGTH, WIDTH),),
            dict.fromkeys(("block", "block.inner", "head"), (-1, 0, True)),
        )
        for kind in MAKERS
    },
}
