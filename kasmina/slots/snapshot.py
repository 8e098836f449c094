"""A snapshot: a model's seeds as they hang and a part of its weights, to be put back."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kasmina.slots.grafted_seed import GraftedSeed
from kasmina.slots.slot import attach_seed, detach_seed, slot_of


@dataclass(frozen=True)
class HeldSeeds:
    """The seeds of one site, in order of grafting."""

    site: str
    module: nn.Module
    seeds: list[GraftedSeed]


def held_seeds(model: nn.Module) -> list[HeldSeeds]:
    """Every site of a model that carries seeds, whatever the seeds are called."""
    slots = ((name, module, slot_of(module)) for name, module in model.named_modules())
    return [HeldSeeds(n, m, list(slot.seeds())) for n, m, slot in slots if slot is not None]


class Snapshot:
    """Seeds, their order and plain state, and copies of tensors; each is the same object after.

    Args:
        names: entries of the state dict whose tensors are copied, because they will be overwritten.
    """

    def __init__(self, model: nn.Module, names: Container[str] = ()):
        self._model = model
        self._held = held_seeds(model)
        self._states = [_SeedState(seed) for held in self._held for seed in held.seeds]
        self._tensors = [
            (value, value.clone())
            for name, value in model.state_dict().items()
            if name in names and isinstance(value, Tensor)
        ]

    def restore(self) -> None:
        """Put everything back."""
        now = held_seeds(self._model)
        if now != self._held:
            for held in now:
                for seed in held.seeds:
                    detach_seed(held.module, seed)
            for held in self._held:
                for seed in held.seeds:
                    attach_seed(held.site, held.module, seed)
        with torch.no_grad():
            for tensor, copied in self._tensors:
                tensor.copy_(copied)
        for state in self._states:
            state.restore()


class _SeedState:
    """What of a seed is in no tensor."""

    def __init__(self, seed: GraftedSeed):
        self._seed = seed
        self._fault = seed.fault, seed.is_fault_told, seed.active
        shield = seed.shield
        self._stream = None if shield is None else (shield.rng_seed, shield.num_calls)
        self._trained = [(parameter, parameter.requires_grad) for parameter in seed.parameters()]
        self._modes = [(module, module.training) for module in seed.modules()]

    def restore(self) -> None:
        self._seed.fault, self._seed.is_fault_told, self._seed.active = self._fault
        if self._seed.shield is not None and self._stream is not None:
            self._seed.shield.rng_seed, self._seed.shield.num_calls = self._stream
        for parameter, trained in self._trained:
            parameter.requires_grad_(trained)
        for module, training in self._modes:
            module.training = training
