"""The task of a LightningModule: its own training step, on a copy that reaches nothing live."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Final, NoReturn, cast

import lightning.pytorch as pl
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor, nn

from kasmina import copy_module
from leyline import TrialError

_FORBIDDEN: Final = frozenset(
    {"optimizers", "lr_scheduler_configs", "strategy", "save_checkpoint", "fit", "callbacks"}
)


class ReadOnlyTrainer:
    """Stands in for the live trainer on a copy: reading is allowed, reaching the run is not."""

    def __init__(self, trainer: pl.Trainer):
        object.__setattr__(self, "_live", trainer)

    def __getattr__(self, name: str) -> Any:
        if name in _FORBIDDEN:
            raise TrialError(f"no trial: the training step uses trainer.{name}, which is live")
        if name == "logger":
            return DummyLogger()
        if name == "loggers":
            return []
        return getattr(object.__getattribute__(self, "_live"), name)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise TrialError(f"no trial: the training step sets trainer.{name}, which is live")


def _silent(*args: Any, **kwargs: Any) -> None:
    """A copy's logs go nowhere."""


def _refuse(*args: Any, **kwargs: Any) -> NoReturn:
    raise TrialError("no trial: the training step touches optimizers or schedulers itself")


class LightningTask:
    """Copies of a LightningModule, and the loss that its training step returns."""

    def __init__(self, trainer: pl.Trainer, module: pl.LightningModule):
        self._trainer = trainer
        self._module = module

    def copy(self) -> nn.Module:
        """A deep copy whose logging is muted and whose trainer can only be read."""
        copied = copy_module(self._module)
        trainer = ReadOnlyTrainer(self._trainer)
        for module in copied.modules():
            if isinstance(module, pl.LightningModule):
                module.__dict__["_trainer"] = trainer
                module.__dict__.update(log=_silent, log_dict=_silent)
                module.__dict__.update(
                    optimizers=_refuse, lr_schedulers=_refuse, manual_backward=_refuse
                )
        return copied

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The loss of the copy's own training step."""
        module = cast(pl.LightningModule, model)
        if not module.automatic_optimization:
            raise TrialError(
                f"no trial: {type(module).__name__} optimizes by hand, so its training step has "
                "no loss that a copy can be trained on"
            )
        arguments = [batch, 0, 0][: _num_positional(module.training_step)]
        output = module.training_step(*arguments)
        loss = output.get("loss") if isinstance(output, Mapping) else output
        if not isinstance(loss, Tensor):
            raise TrialError(
                f"no trial: training_step of {type(module).__name__} returned no loss for a batch"
            )
        return loss

    def context(self) -> AbstractContextManager[Any]:
        """The precision context of the run's training steps."""
        return self._trainer.precision_plugin.train_step_context()


def _num_positional(step: Any) -> int:
    """How many of (batch, batch_idx, dataloader_idx) a training step takes."""
    parameters = inspect.signature(step).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return 2
    return min(3, sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters))
