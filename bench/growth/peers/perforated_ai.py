"""PerforatedAI: a copy of every layer is added beside it, at fixed times."""

from __future__ import annotations

from typing import Any, Final

from perforatedai import globals_perforatedai, utils_perforatedai
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bench.growth.peers.changing import Changing
from bench.growth.task import Score, Task

_NUM_SWITCHES: Final = 3
_GROWTH_SHARE: Final = 0.6
"""Of a run, in which all of them fall: then the rate falls."""


def start(task: Task, model: nn.Module, optimizer: Optimizer, scheduler: LambdaLR) -> Perforated:
    """Wrap a host, headless: without these flags the package asks questions on a terminal."""
    settings = globals_perforatedai.pc
    settings.set_configuration_confirmed(True)
    settings.set_unwrapped_modules_confirmed(True)
    settings.set_weight_decay_accepted(True)
    settings.set_testing_dendrite_capacity(False)
    settings.set_use_cuda(False)
    settings.set_device("cpu")
    settings.set_silent(True)
    settings.set_switch_mode(settings.DOING_FIXED_SWITCH)
    every = round(_GROWTH_SHARE * task.num_spans / _NUM_SWITCHES)
    settings.set_fixed_switch_num(every)
    settings.set_first_fixed_switch_num(every)
    settings.set_max_dendrites(_NUM_SWITCHES)
    settings.set_retain_all_dendrites(True)
    wrapped = utils_perforatedai.perforate_model(
        model, save_name="run", making_graphs=False, maximizing_score=True
    )
    return Perforated(task, wrapped, optimizer)


class Perforated(Changing):
    """Tells the package's tracker of every span, and goes on with the network it gives back."""

    def __init__(self, task: Task, model: nn.Module, optimizer: Optimizer) -> None:
        super().__init__(task, model, optimizer)
        self._tracker: Any = globals_perforatedai.pai_tracker
        self._tracker.set_optimizer_instance(optimizer)
        self._is_complete = False
        self.has_changed(model.parameters())

    def after_span(self, score: Score) -> None:
        self.count_span()
        if self._is_complete:
            return
        model, has_changed, self._is_complete = self._tracker.add_validation_score(
            score.metric, self.model
        )
        if has_changed or self._is_complete:
            self.model = model.train()
            self.has_changed(p for p in model.parameters() if p.requires_grad)
            self._tracker.set_optimizer_instance(self.optimizer)

    @property
    def unused_parameters(self) -> int:
        """Those of the copy of every layer that the package keeps and never runs."""
        named = self.model.named_parameters()
        return sum(p.numel() for name, p in named if "parent_module" in name)
