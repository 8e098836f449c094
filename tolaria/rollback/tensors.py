"""The tensors of a run by name: parameters, buffers, and what optimizers keep of parameters."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from kasmina.structure import is_seed_key
from tolaria.rollback.arena import Side

Kept = dict[str, dict[Any, Any]]
"""What optimizers keep besides tensors: of each parameter, by a prefix for its names, and of none,
by the optimizer's own prefix."""
_TENSOR: Final = object()
"""Stands for a tensor, which is kept elsewhere under its own name."""
_CACHE: Final = "cache."
"""Before the names of buffers that are in no state dict."""


def weights_of(model: nn.Module, optimizers: Sequence[Optimizer]) -> dict[str, Tensor]:
    """Parameters and buffers that a step may change in place, each tensor under one name."""
    return {**dict(_parameters(model, optimizers)), **dict(_buffers(model))}


def state_of(
    weights: Mapping[str, Tensor], optimizers: Sequence[Optimizer]
) -> tuple[dict[str, Tensor], Kept]:
    """What optimizers keep of these weights: tensors by name, and copies of the rest."""
    names = _names(weights)
    tensors: dict[str, Tensor] = {}
    kept: Kept = {}
    for number, optimizer in enumerate(optimizers):
        kept[_own(number)] = _copy_of_own(optimizer)
        for parameter, state in optimizer.state.items():
            if (name := names.get(id(parameter))) is None:
                continue
            prefix = _prefix(number, name)
            tensors |= _tensors(prefix, state)
            kept[prefix] = {
                key: _TENSOR if isinstance(value, Tensor) else copy.deepcopy(value)
                for key, value in state.items()
            }
    return tensors, kept


def mismatch(side: Side, weights: Mapping[str, Tensor], without_seeds: bool) -> str | None:
    """Why weights that were kept cannot go back where they came from, or None."""
    for name in side:
        if name.startswith(("optimizer.", _CACHE)) or (without_seeds and is_seed_key(name)):
            continue
        if name not in weights:
            return f"{name} is gone"
        then, now = _kind(side[name]), _kind(weights[name])
        if now != then:
            return "{} was {} {} on {} and is {} {} on {}".format(name, *then, *now)
    return None


def bring_back(
    side: Side, kept: Kept, weights: Mapping[str, Tensor], optimizers: Sequence[Optimizer]
) -> None:
    """Copy everything back in place; optimizer state that was not there then is dropped.

    State that is gone since comes back as a copy, for the next step would write into the original.
    A buffer that is in no state dict and was made anew in another shape stays: it is a cache, and
    what the module knows of its size is in no tensor.
    """
    names = _names(weights)
    live = dict(weights)
    for cache in [name for name in side if name.startswith(_CACHE)]:
        if cache in live and _kind(live[cache]) != _kind(side[cache]):
            del live[cache]
    for number, optimizer in enumerate(optimizers):
        for parameter in [p for group in optimizer.param_groups for p in group["params"]]:
            if (name := names.get(id(parameter))) is None:
                continue  # lazy: it has no shape yet
            prefix, state = _prefix(number, name), optimizer.state.pop(parameter, {})
            if prefix in kept:
                optimizer.state[parameter] = _as_then(state, kept[prefix], prefix, side)
                live |= _tensors(prefix, state)
        for key in _copy_of_own(optimizer):
            del optimizer.state[key]
        optimizer.state.update(copy.deepcopy(kept[_own(number)]))
    side.pour(live)


def _as_then(
    state: dict[str, Any], kept: Mapping[str, Any], prefix: str, side: Side
) -> dict[str, Any]:
    """One parameter's optimizer state with the keys that it had; its tensors where they are."""
    then = {}
    for key, value in kept.items():
        if value is not _TENSOR:
            then[key] = copy.deepcopy(value)
            continue
        now, held = state.get(key), side[prefix + key]
        then[key] = now if isinstance(now, Tensor) and _kind(now) == _kind(held) else held.clone()
    state.clear()
    state.update(then)
    return state


def _kind(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.dtype, tensor.device


def _parameters(
    model: nn.Module, optimizers: Sequence[Optimizer]
) -> Iterator[tuple[str, nn.Parameter]]:
    """The model's parameters, then those that only an optimizer knows, such as a loss's own."""
    own = set()
    for name, parameter in model.named_parameters():
        own.add(id(parameter))
        if not is_lazy(parameter):
            yield f"model.{name}", parameter
    groups = (group for optimizer in optimizers for group in optimizer.param_groups)
    strange = {id(p): p for group in groups for p in group["params"] if id(p) not in own}
    for number, parameter in enumerate(strange.values()):
        yield f"other.{number}", parameter


def _buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    found = set()
    for path, module in model.named_modules():
        for name, buffer in module._buffers.items():
            if buffer is None or id(buffer) in found or _is_fixed(buffer):
                continue
            found.add(id(buffer))
            prefix = _CACHE if name in module._non_persistent_buffers_set else "model."
            yield f"{prefix}{path}.{name}" if path else f"{prefix}{name}", buffer


def _names(weights: Mapping[str, Tensor]) -> dict[int, str]:
    return {id(weight): name for name, weight in weights.items()}


def _tensors(prefix: str, state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items() if isinstance(value, Tensor)}


def _copy_of_own(optimizer: Optimizer) -> dict[Any, Any]:
    """A copy of the state that is of no parameter, as some optimizers have it."""
    own = {key: value for key, value in optimizer.state.items() if not isinstance(key, Tensor)}
    return copy.deepcopy(own)


def _prefix(optimizer: int, parameter: str) -> str:
    return f"{_own(optimizer)}{parameter}/"


def _own(optimizer: int) -> str:
    return f"optimizer.{optimizer}."


def _is_fixed(buffer: Tensor) -> bool:
    """Whether nothing can be written into a buffer: several of its items share one place."""
    if is_lazy(buffer) or buffer.layout is not torch.strided:
        return is_lazy(buffer)
    return any(n > 1 and s == 0 for n, s in zip(buffer.shape, buffer.stride(), strict=True))
