"""Carried tensors: what a model keeps from pass to pass in plain attributes, beside its buffers.

A hidden state, a running activation, a memory: on a shadow they must not go from one candidate to
the next, nor keep what a proof has left there.
"""

from __future__ import annotations

from typing import Any, Final

from torch import nn

from kasmina.trials.batches import keep, tensors_in

_OWN: Final = frozenset(nn.Module().__dict__)
"""What torch itself keeps in every module."""


class Carried:
    """The attributes of a model's modules that are tensors, hold some, or are still None."""

    def __init__(self, model: nn.Module):
        self._born: dict[nn.Module, dict[str, Any]] = {
            module: {name: keep(value) for name, value in _attributes(module)}
            for module in model.modules()
        }

    def restore(self) -> None:
        """Put them back to what they were; a tensor in a new attribute goes."""
        for module, born in self._born.items():
            for name, value in list(_attributes(module)):
                if name in born:
                    if value is not None or born[name] is not None:
                        module.__dict__[name] = keep(born[name])
                elif value is not None:
                    del module.__dict__[name]


def _attributes(module: nn.Module) -> list[tuple[str, Any]]:
    values = ((name, value) for name, value in module.__dict__.items() if name not in _OWN)
    return [(name, value) for name, value in values if value is None or _is_carried(value)]


def _is_carried(value: Any) -> bool:
    """Whether it holds tensors, and none that is trained, as the weights that an LSTM lists are."""
    tensors = tensors_in(value)
    return bool(tensors) and not any(isinstance(tensor, nn.Parameter) for tensor in tensors)
