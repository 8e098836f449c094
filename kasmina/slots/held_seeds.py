"""Held seeds: those of a model as they hang now, remembered so that they can be put back."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from kasmina.slots.grafted_seed import GraftedSeed
from kasmina.slots.slot import attach_seed, detach_seed, every_seed
from kasmina.walk import modules_of


class HeldSeeds:
    """Seeds, their order and plain state, and copies of tensors; each is the same object after.

    Weights are not copied unless they are named.

    Args:
        names: entries of the state dict whose tensors are copied, because they will be overwritten.
    """

    def __init__(self, model: nn.Module, names: Collection[str] = ()):
        self._model = model
        self._held = every_seed(model)
        self._states = [_SeedState(held.seed) for held in self._held]
        self._tensors = [
            (value, value.clone())
            for name, value in (model.state_dict() if names else {}).items()
            if name in names and isinstance(value, Tensor)
        ]

    def restore(self) -> None:
        """Put everything back."""
        now = every_seed(self._model)
        if now != self._held:
            # All of them, so that seeds of one site keep their order.
            for held in now:
                detach_seed(held.module, held.seed)
            for held in self._held:
                attach_seed(*held)
        with torch.no_grad():
            for tensor, copied in self._tensors:
                tensor.copy_(copied)
        for state in self._states:
            state.restore()


@contextmanager
def all_or_nothing(model: nn.Module, names: Collection[str] = ()) -> Iterator[None]:
    """Run a block; unless it comes to its end a model's seeds are as before, and named tensors too.

    Arguments are those of HeldSeeds.
    """
    with ExitStack() as undo:
        undo.callback(HeldSeeds(model, names).restore)
        yield
        undo.pop_all()


class _SeedState:
    """What of a seed is in no tensor."""

    def __init__(self, seed: GraftedSeed):
        self._seed = seed
        self._fault = seed.fault, seed.is_fault_told, seed.active
        shield = seed.shield
        self._stream = None if shield is None else (shield.rng_seed, shield.num_calls)
        modules = modules_of(seed)
        held = [p for module in modules for p in module._parameters.values() if p is not None]
        self._trained = [(parameter, parameter.requires_grad) for parameter in held]
        self._modes = [(module, module.training) for module in modules]

    def restore(self) -> None:
        """Put it back; parameters and submodules are those that the seed had."""
        self._seed.fault, self._seed.is_fault_told, self._seed.active = self._fault
        if self._seed.shield is not None and self._stream is not None:
            self._seed.shield.rng_seed, self._seed.shield.num_calls = self._stream
        for parameter, trained in self._trained:
            parameter.requires_grad_(trained)
        for module, training in self._modes:
            module.training = training
