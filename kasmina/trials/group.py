"""A group: candidates of one site that take their training steps together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
)

from kasmina.trials.recording import Recording
from kasmina.trials.replay import Replay
from kasmina.trials.rows import Rows
from kasmina.trials.shadow import MAX_GRADIENT_NORM, Shadow, descend, train_batch
from kasmina.trials.trial import OptimizerRecipe, Trial
from leyline import TrialError

_EACH_BY_ITSELF: Final = (SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, NAdam, RAdam, RMSprop)
"""Optimizers for which one over all parameters does what one for each would."""


class Group:
    """Candidates of one site and the optimizer they share.

    Args:
        rows: how they share a pass; None for a single candidate.
    """

    def __init__(
        self, trials: Sequence[Trial], replay: Replay, rows: Rows | None, recipe: OptimizerRecipe
    ):
        self.site = trials[0].site
        self.trials = list(trials)
        self._replay = replay
        self._rows = rows
        self._parameters = {t.seed: list(t.module.parameters()) for t in trials}
        self._optimizers = _joined(trials, recipe)
        for trial in trials:
            trial.module.blend(1.0)
            trial.module.train()

    def step(self, shadow: Shadow, recording: Recording | None, batch: Any) -> None:
        """One training step of every candidate; without a recording through the whole host."""
        if recording is None:
            for trial in self.trials:
                with shadow.carrying(self.site, trial.module):
                    trial.module.train()
                    train_batch(shadow, batch, trial.module, trial.optimizer)
        elif self._rows is None:
            (trial,) = self.trials
            loss = partial(self._replay.loss, self.site, recording, batch, trial.act)
            _refuse_spoilt(descend(loss, trial.module, trial.optimizer))
        else:
            self._step_together(self._rows, recording, batch)
        for trial in self.trials:
            trial.steps += 1

    def leavers(self) -> list[Trial]:
        """Take out and return the candidates that have faulted."""
        faulted = [trial for trial in self.trials if trial.module.fault is not None]
        self.trials = [trial for trial in self.trials if trial.module.fault is None]
        return faulted

    def _step_together(self, rows: Rows, recording: Recording, batch: Any) -> None:
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        with torch.enable_grad():
            loss = rows.loss(recording, batch, [trial.act for trial in self.trials])
        if not loss.requires_grad:
            return  # every one of them has faulted in this very pass
        _refuse_spoilt(loss)
        torch.autograd.backward(loss)
        self._clip()
        for optimizer in self._optimizers:
            optimizer.step()

    def _clip(self) -> None:
        """Clip the gradient of each candidate by itself."""
        owned = [
            (number, parameter.grad)
            for number, trial in enumerate(self.trials)
            for parameter in self._parameters[trial.seed]
            if parameter.grad is not None
        ]
        gradients: list[Tensor] = [gradient for _, gradient in owned]
        owners = torch.tensor([number for number, _ in owned], device=gradients[0].device)
        squares = torch.stack(list(torch._foreach_norm(gradients))).square()
        totals = squares.new_zeros(len(self.trials)).index_add_(0, owners, squares).sqrt()
        _refuse_spoilt(totals)
        factors = (MAX_GRADIENT_NORM / (totals + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(gradients, list(factors[owners].unbind()))


def _refuse_spoilt(values: Tensor) -> None:
    """Whose doing it is that a shared value is not finite, only passes alone can tell."""
    if not bool(torch.isfinite(values).all()):
        raise TrialError("a shared pass gave a loss or gradient that is not finite")


def _joined(trials: Sequence[Trial], recipe: OptimizerRecipe) -> list[Optimizer]:
    """One optimizer over all candidates that works on the state of their own ones, if one can."""
    if recipe.factory not in _EACH_BY_ITSELF:
        return [trial.optimizer for trial in trials]
    joint = recipe.build([p for trial in trials for p in trial.module.parameters()])
    for trial in trials:
        for parameter in trial.module.parameters():
            joint.state[parameter] = trial.optimizer.state[parameter]
    return [joint]
