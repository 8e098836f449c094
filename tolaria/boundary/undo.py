"""Undo: what a boundary has changed when it fails half-way, put back."""

from __future__ import annotations

from torch import nn

from kasmina import Executor
from kasmina.slots.held_seeds import HeldSeeds
from tamiyo import Controller
from tolaria.rates import UnifiedLRController


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
        self._seeds = HeldSeeds(model)
        self._executor, self._executor_state = executor, executor.state_dict()
        self._rates, self._mark = rates, rates.mark()
        self._controller, self._controller_state = controller, controller.state_dict()

    def mark_rates(self) -> None:
        """Take optimizers and schedulers again: more schedulers are known by now."""
        self._mark = self._rates.mark()

    def run(self) -> None:
        """Put everything back."""
        self._seeds.restore()
        self._executor.load_state_dict(self._executor_state)
        self._controller.load_state_dict(self._controller_state)
        self._rates.go_back(self._mark)
