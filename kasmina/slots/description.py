"""What a state dict says of seeds: which hang in a slot, and how far each has come.

Both are JSON in a uint8 tensor, because a state dict of safetensors holds tensors alone. Whoever
wrote the file, what is read here is either what a seed can be or a CheckpointError.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import torch
from torch import Tensor

from kasmina.sites.shape import SiteShape
from leyline import CheckpointError

Value = TypeVar("Value")
_MAX_INT: Final = 2**63 - 1
"""What torch counts sizes in, and what an RNG seed is below."""
_WORDS: Final[dict[type, str]] = {
    bool: "true or false",
    dict: "an object",
    int: "a whole number",
    list: "a list",
    str: "a text",
}


@dataclass(frozen=True)
class SeedDescription:
    """One seed of a slot, weights apart."""

    key: str
    """Its name in the slot: the last part of the seed's."""
    seed: str
    blueprint: str
    shape: SiteShape
    chunk: tuple[int, int]
    active: bool
    trainable: bool


@dataclass(frozen=True)
class SeedState:
    """What a seed remembers beside its tensors."""

    fault: str | None
    is_fault_told: bool
    stream: tuple[int, int] | None
    """RNG seed and number of calls of a shielded body."""


def to_tensor(values: Any) -> Tensor:
    """Plain values as JSON in a uint8 tensor; the readers below take it back."""
    return torch.tensor(list(json.dumps(values).encode()), dtype=torch.uint8)


def read_descriptions(state: Any, owner: str) -> list[SeedDescription]:
    """The seeds of a slot, in order of grafting.

    Args:
        state: the slot's entry in a state dict.
        owner: what the error calls the slot.

    Raises:
        CheckpointError: it is damaged, or says what no seed can be.
    """
    return _read(state, f"the description of {owner}", _descriptions)


def read_seed_state(state: Any, owner: str) -> SeedState:
    """Fault and random stream of a seed; arguments and errors as of `read_descriptions`."""
    return _read(state, f"the stored state of {owner}", _seed_state)


def _read(state: Any, what: str, reader: Callable[[Any], Value]) -> Value:
    if (
        not isinstance(state, Tensor)
        or state.is_meta
        or (state.dtype, state.ndim) != (torch.uint8, 1)
    ):
        found = f"{state.dtype} {tuple(state.shape)}" if isinstance(state, Tensor) else type(state)
        raise CheckpointError(f"{what} is damaged: it is {found}, not one row of uint8")
    try:
        return reader(json.loads(bytes(state.tolist()).decode()))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{what} is damaged: {error}") from error


def _descriptions(values: Any) -> list[SeedDescription]:
    described = [_description(value) for value in _checked("it", values, list)]
    keys = [seed.key for seed in described]
    if len(set(keys)) < len(keys):
        raise ValueError(f"it describes a seed twice; its keys are {keys}")
    return described


def _description(values: Any) -> SeedDescription:
    key, seed = _field(values, "key", str), _field(values, "seed", str)
    seed.encode()  # a text of JSON may hold half a surrogate pair, of which no bytes can be made
    if not key or "." in key or seed.rsplit("/", 1)[-1] != key:
        raise ValueError(f"the key of seed {seed!r} is {key!r}; seeds are named <site>/<key>")
    number, num_chunks = _whole_numbers(_field(values, "chunk", list), "chunk", 2)
    if number >= num_chunks:
        raise ValueError(f"'chunk' is {number} of {num_chunks}; they count from 0")
    return SeedDescription(
        key=key,
        seed=seed,
        blueprint=_field(values, "blueprint", str),
        shape=_shape(_field(values, "shape", dict)),
        chunk=(number, num_chunks),
        active=_field(values, "active", bool),
        trainable=_field(values, "trainable", bool),
    )


def _shape(values: dict[str, Any]) -> SiteShape:
    sizes = _whole_numbers(_field(values, "sizes", list), "sizes")
    channel_axis = _field(values, "channel_axis", int)
    batch_axis = _field(values, "batch_axis", int)
    if len(sizes) < 2 or min(sizes) < 1 or math.prod(sizes) > _MAX_INT:
        raise ValueError(f"'sizes' is {sizes!r:.80}; a site has two or more axes, none empty")
    if channel_axis not in (1, -1):
        raise ValueError(f"'channel_axis' is {channel_axis}; it may be 1 or -1")
    if batch_axis not in (0, 1) or batch_axis == channel_axis % len(sizes):
        raise ValueError(f"'batch_axis' is {batch_axis}; it may be 0 or 1, but not the channels'")
    causal = _field(values, "causal", bool)
    return SiteShape(sizes, channel_axis, batch_axis=batch_axis, causal=causal)


def _seed_state(values: Any) -> SeedState:
    fault, stream = _field(values, "fault", str, None), _field(values, "stream", list, None)
    if stream is not None:
        rng_seed, num_calls = _whole_numbers(stream, "stream", 2)
    return SeedState(
        fault=fault,
        is_fault_told=_field(values, "is_fault_told", bool),
        stream=None if stream is None else (rng_seed, num_calls),
    )


def _field(values: Any, name: str, kind: type, *others: Any) -> Any:
    """An entry of exactly this type, or one of the other values."""
    held = _checked("an entry", values, dict)
    if name not in held:
        raise ValueError(f"{name!r} is missing")
    value = held[name]
    return value if any(value is other for other in others) else _checked(repr(name), value, kind)


def _checked(name: str, value: Any, kind: type) -> Any:
    if type(value) is not kind:  # isinstance takes True for a number
        raise ValueError(f"{name} is {value!r:.80}, not {_WORDS[kind]}")
    return value


def _whole_numbers(values: list[Any], name: str, length: int | None = None) -> list[int]:
    fits = length is None or len(values) == length
    if not fits or not all(type(value) is int and 0 <= value <= _MAX_INT for value in values):
        many = "whole numbers" if length is None else f"{length} whole numbers"
        raise ValueError(f"{name!r} is {values!r:.80}, not {many} from 0")
    return values
