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

Kept = dict[str, dict[str, Any]]
"""What optimizers keep of each parameter, by a prefix for its names, with tensors left out."""
_TENSOR: Final = object()
"""Stands for a tensor, which is kept elsewhere under its own name."""


def named_tensors(model: nn.Module, optimizers: Sequence[Optimizer]) -> dict[str, Tensor]:
    """Everything that a step may change in place, each tensor under one name."""
    tensors: dict[str, Tensor] = dict(_parameters(model, optimizers))
    names = {id(parameter): name for name, parameter in tensors.items()}
    tensors |= {f"model.{name}": b for name, b in model.named_buffers() if not _is_fixed(b)}
    for prefix, state in _states(names, optimizers):
        tensors |= {prefix + k: value for k, value in state.items() if isinstance(value, Tensor)}
    return {name: tensor.detach() for name, tensor in tensors.items()}


def kept_values(model: nn.Module, optimizers: Sequence[Optimizer]) -> Kept:
    """Copies of what optimizers keep of parameters besides tensors."""
    names = {id(parameter): name for name, parameter in _parameters(model, optimizers)}
    return {
        prefix: {
            key: _TENSOR if isinstance(value, Tensor) else copy.deepcopy(value)
            for key, value in state.items()
        }
        for prefix, state in _states(names, optimizers)
    }


def mismatch(side: Side, live: Mapping[str, Tensor], without_seeds: bool) -> str | None:
    """Why parameters and buffers that were kept cannot go back where they came from, or None."""
    for name in side:
        if name.startswith("optimizer.") or (without_seeds and is_seed_key(name)):
            continue
        if name not in live:
            return f"{name} is gone"
        then, now = _kind(side[name]), _kind(live[name])
        if now != then:
            return "{} was {} {} on {} and is {} {} on {}".format(name, *then, *now)
    return None


def bring_back(side: Side, kept: Kept, model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
    """Copy everything back in place; optimizer state that was not there then is dropped.

    State that is gone since comes back as a copy, for the next step would write into the original.
    """
    names = {id(parameter): name for name, parameter in _parameters(model, optimizers)}
    for number, optimizer in enumerate(optimizers):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        before = {p: optimizer.state.pop(p, {}) for p in parameters}
        for parameter, state in before.items():
            prefix = _prefix(number, names[id(parameter)])
            if prefix in kept:
                optimizer.state[parameter] = _as_then(state, kept[prefix], prefix, side)
    side.pour(named_tensors(model, optimizers))


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


def _states(
    names: Mapping[int, str], optimizers: Sequence[Optimizer]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, optimizer in enumerate(optimizers):
        for parameter, state in optimizer.state.items():
            if id(parameter) in names:
                yield _prefix(number, names[id(parameter)]), state


def _prefix(optimizer: int, parameter: str) -> str:
    return f"optimizer.{optimizer}.{parameter}/"


def _is_fixed(buffer: Tensor) -> bool:
    """Whether nothing can be written into a buffer: several of its items share one place."""
    if is_lazy(buffer) or buffer.layout is not torch.strided:
        return is_lazy(buffer)
    return any(n > 1 and s == 0 for n, s in zip(buffer.shape, buffer.stride(), strict=True))
