"""The task of a LightningModule: its own training step, on a copy that reaches nothing live."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, NoReturn, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor, nn

from kasmina import copy_module
from leyline import TrialError

_FORBIDDEN: Final = frozenset(
    {
        "callbacks",
        "fit",
        "lightning_module",
        "lr_scheduler_configs",
        "model",
        "optimizers",
        "predict",
        "save_checkpoint",
        "strategy",
        "test",
        "validate",
    }
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


class InertOptimizer:
    """Stands in for an optimizer in a dry run by hand: its methods do nothing."""

    param_groups: tuple[dict[str, Any], ...] = ()

    def step(self, closure: Callable[[], Any] | None = None, **kwargs: Any) -> Any:
        """Run the closure, which may hold the forward pass."""
        return None if closure is None else closure()

    def toggle_model(self, **kwargs: Any) -> AbstractContextManager[None]:
        """Toggle nothing."""
        return nullcontext()

    def __getattr__(self, name: str) -> Callable[..., None]:
        return _silent


def is_lightning_module(module: nn.Module) -> bool:
    """Whether it is one of either Lightning: `pytorch_lightning` is a second copy of the code."""
    return "LightningModule" in {kind.__name__ for kind in type(module).__mro__}


def _silent(*args: Any, **kwargs: Any) -> None:
    """What a copy says goes nowhere."""


def _refuse(*args: Any, **kwargs: Any) -> NoReturn:
    raise TrialError("no trial: the training step touches optimizers or schedulers itself")


def _idle(*args: Any, **kwargs: Any) -> AbstractContextManager[None]:
    return nullcontext()


class LightningTask:
    """Copies of a LightningModule, and the loss that its training step returns."""

    def __init__(self, trainer: pl.Trainer, module: pl.LightningModule):
        # Weak: an ended run must not keep its trainer, with loaders and loggers, in memory.
        self._trainer: pl.Trainer = weakref.proxy(trainer)
        self._module = module

    def copy(self) -> nn.Module:
        """A deep copy whose logging is muted and whose trainer can only be read."""
        copied = copy_module(self._module)
        trainer = ReadOnlyTrainer(self._trainer)
        for module in copied.modules():
            if is_lightning_module(module):
                module.__dict__["_trainer"] = trainer
                module.__dict__.update(log=_silent, log_dict=_silent, print=_silent)
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
        output = _run_step(module, batch)
        loss = output.get("loss") if isinstance(output, Mapping) else output
        if not isinstance(loss, Tensor):
            raise TrialError(
                f"no trial: training_step of {type(module).__name__} returned no loss for a batch"
            )
        return loss

    def dry_run(self, model: nn.Module, batch: Any) -> None:
        """Run the copy's training step for what it calls; one by hand meets inert optimizers."""
        module = cast(pl.LightningModule, model)
        if not module.automatic_optimization:
            optimizers = [InertOptimizer() for _ in self._trainer.optimizers]
            schedulers = [InertOptimizer() for _ in self._trainer.lr_scheduler_configs]
            module.__dict__.update(
                optimizers=lambda *_, **__: _one_or_all(optimizers),
                lr_schedulers=lambda *_: _one_or_all(schedulers),
                manual_backward=_silent,
                clip_gradients=_silent,
                toggle_optimizer=_silent,
                untoggle_optimizer=_silent,
                toggled_optimizer=_idle,
            )
        _run_step(module, batch)

    def context(self) -> AbstractContextManager[Any]:
        """The precision context of the run's training steps."""
        return self._trainer.precision_plugin.train_step_context()

    def evaluation(self) -> AbstractContextManager[Any]:
        """As the run's validation loop."""
        inference = self._trainer.fit_loop.epoch_loop.val_loop.inference_mode
        return torch.inference_mode() if inference else torch.no_grad()


def _run_step(module: pl.LightningModule, batch: Any) -> Any:
    arguments = [batch, 0, 0][: _num_positional(module.training_step)]
    return module.training_step(*arguments)


def _one_or_all(stand_ins: list[InertOptimizer]) -> Any:
    """As Lightning hands them out: one bare, several in a list, none as None."""
    return stand_ins if len(stand_ins) > 1 else next(iter(stand_ins), None)


def _num_positional(step: Any) -> int:
    """How many of (batch, batch_idx, dataloader_idx) a training step takes."""
    parameters = inspect.signature(step).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return 2
    return min(3, sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters))
