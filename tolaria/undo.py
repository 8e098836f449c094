"""Undo: what a boundary has changed when it fails half-way, put back."""

from __future__ import annotations

from torch import nn

from kasmina import Executor
from kasmina.slots.grafted_seed import GraftedSeed
from kasmina.slots.slot import attach_seed, attached_seeds, detach_seed
from tamiyo import Controller
from tolaria.learning_rate import UnifiedLRController

_Held = list[tuple[str, nn.Module, GraftedSeed]]


class Undo:
    """The state table, the seeds in the model, the optimizers' groups and the policy's own state.

    Made before a boundary changes anything. Weights are not copied: a boundary moves none.
    """

    def __init__(
        self,
        model: nn.Module,
        executor: Executor,
        rates: UnifiedLRController,
        controller: Controller,
    ):
        self._model = model
        self._executor, self._executor_state = executor, executor.state_dict()
        self._rates, self._mark = rates, rates.mark()
        self._controller, self._controller_state = controller, controller.state_dict()
        self._seeds: _Held = list(attached_seeds(model).values())
        self._trained = [
            [(p, p.requires_grad) for p in seed.parameters()] for _, _, seed in self._seeds
        ]

    def run(self) -> None:
        """Put everything back."""
        if list(attached_seeds(self._model).values()) != self._seeds:
            # All of them, so that seeds of one site keep their order.
            for _, module, seed in attached_seeds(self._model).values():
                detach_seed(module, seed)
            for site, module, seed in self._seeds:
                attach_seed(site, module, seed)
        for parameters in self._trained:
            for parameter, requires_grad in parameters:
                parameter.requires_grad_(requires_grad)
        self._executor.load_state_dict(self._executor_state)
        self._controller.load_state_dict(self._controller_state)
        self._rates.go_back(self._mark)
