"""The fast tier of rollback: the last good weights and optimizer state, in memory.

Tensors are copied into storage that is kept between snapshots, and copied back in place: a
snapshot handed to `load_state_dict` would become the live state and be corrupted by the next step.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class Snapshot:
    """One state of a model and its optimizers, by parameter name."""

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] = {}
        self._scalars: dict[str, Any] = {}
        self.epoch: int | None = None
        """The epoch after which it was taken; None while empty."""
        self.step = 0

    def take(
        self, model: nn.Module, optimizers: Sequence[Optimizer], *, epoch: int, step: int
    ) -> None:
        """Copy the state as it is now; the caller has made sure that it is good."""
        tensors, scalars = _state_of(model, optimizers)
        held = self._tensors
        self._tensors = {
            name: held[name]
            if name in held
            and held[name].shape == tensor.shape
            and held[name].dtype == tensor.dtype
            else torch.empty_like(tensor)
            for name, tensor in tensors.items()
        }
        _copy(list(self._tensors.values()), list(tensors.values()))
        self._scalars, self.epoch, self.step = scalars, epoch, step

    def restore(self, model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
        """Copy the state back into whatever of it is still live; gradients become None.

        Optimizer state that a parameter did not have then is dropped.
        """
        tensors, _ = _state_of(model, optimizers)
        held = self._tensors
        common = [n for n, t in tensors.items() if n in held and held[n].shape == t.shape]
        _copy([tensors[name] for name in common], [held[name] for name in common])
        names = {id(parameter): name for name, parameter in _parameters(model, optimizers)}
        for number, optimizer in enumerate(optimizers):
            for parameter, state in list(optimizer.state.items()):
                if id(parameter) not in names:
                    continue
                prefix = _prefix(number, names[id(parameter)])
                for key in list(state):
                    known = prefix + key
                    if known in self._scalars:
                        state[key] = copy.deepcopy(self._scalars[known])
                    elif known not in self._tensors:
                        del state[key]
                if not state:
                    del optimizer.state[parameter]
            optimizer.zero_grad(set_to_none=True)


def _parameters(
    model: nn.Module, optimizers: Sequence[Optimizer]
) -> Iterator[tuple[str, nn.Parameter]]:
    """The model's parameters, then those that only an optimizer knows, such as a loss's own."""
    own = {}
    for name, parameter in model.named_parameters():
        own[id(parameter)] = parameter
        yield f"model.{name}", parameter
    groups = (group for optimizer in optimizers for group in optimizer.param_groups)
    strange = [p for group in groups for p in group["params"] if id(p) not in own]
    for number, parameter in enumerate(strange):
        yield f"other.{number}", parameter


def _prefix(optimizer: int, parameter: str) -> str:
    return f"optimizer.{optimizer}.{parameter}."


def _state_of(
    model: nn.Module, optimizers: Sequence[Optimizer]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors: dict[str, Tensor] = dict(_parameters(model, optimizers))
    names = {id(parameter): name for name, parameter in tensors.items()}
    tensors |= {f"model.{name}": buffer for name, buffer in model.named_buffers()}
    scalars: dict[str, Any] = {}
    for number, optimizer in enumerate(optimizers):
        for parameter, state in optimizer.state.items():
            prefix = _prefix(number, names.get(id(parameter), ""))
            for key, value in state.items() if id(parameter) in names else ():
                target = tensors if isinstance(value, Tensor) else scalars
                target[prefix + key] = value
    return {name: tensor.detach() for name, tensor in tensors.items()}, copy.deepcopy(scalars)


def _copy(into: list[Tensor], out_of: list[Tensor]) -> None:
    with torch.no_grad():
        torch._foreach_copy_(into, out_of)
