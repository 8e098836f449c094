"""What growth must know of the user's training: how to copy the model and what its loss is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from kasmina.compiled import run_eagerly
from kasmina.guard import attempt, describe
from kasmina.trials.batches import tensors_in
from leyline import TrialError

LossFunction = Callable[[nn.Module, Any], Tensor]
"""`loss_fn(model, batch)`: the 0-dim loss of the model on one batch, with its graph."""


class Task(Protocol):
    """The task's own loss, on a copy of the model that shares nothing with the live one."""

    def copy(self) -> nn.Module:
        """A copy of the model as it is now; running it must not reach the live run."""

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The 0-dim loss of a copy on one training batch, with its graph.

        Raises:
            TrialError: the task has no loss that can be computed on a copy.
        """

    def dry_run(self, model: nn.Module, batch: Any) -> None:
        """Call a copy once as training does; it may be one whose loss cannot be had.

        Raises:
            TrialError: the copy cannot be called so.
        """

    def context(self) -> AbstractContextManager[Any]:
        """The run's precision context, around every forward pass."""

    def evaluation(self) -> AbstractContextManager[Any]:
        """How the run evaluates: without gradients, or in inference mode."""


class FunctionTask:
    """A task for a hand-written loop: a model and `loss_fn(model, batch) -> loss`."""

    def __init__(self, model: nn.Module, loss_fn: LossFunction | None):
        self._model = model
        self._loss_fn = loss_fn

    def copy(self) -> nn.Module:
        """A deep copy of the model."""
        return copy_module(self._model)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The user's loss function on a copy."""
        if self._loss_fn is None:
            raise TrialError("no trial: no loss_fn was given; pass loss_fn=(model, batch) -> loss")
        return self._loss_fn(model, batch)

    def dry_run(self, model: nn.Module, batch: Any) -> None:
        """The loss, for what it calls."""
        self.loss(model, batch)

    def context(self) -> AbstractContextManager[Any]:
        """No autocast of its own: a loss function sets what it needs."""
        return nullcontext()

    def evaluation(self) -> AbstractContextManager[Any]:
        """Without gradients."""
        return torch.no_grad()


def copy_module(model: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """Deep-copy a model; parameters come without their gradients, as deepcopy has it.

    Tensors of a graph that an attribute holds, also in a list or a mapping, are copied detached:
    deepcopy refuses them, and a cached activation is no reason to give up trials. What was
    compiled runs eagerly in the copy: a candidate that lives for a few steps is not worth a graph.

    Args:
        memo: as of copy.deepcopy; objects to replace on the way, by id.

    Raises:
        TrialError: the model cannot be copied, with the reason.
    """
    memo = {} if memo is None else memo
    for module in model.modules():
        for tensor in tensors_in(module.__dict__):
            if tensor.grad_fn is not None:
                memo[id(tensor)] = tensor.detach().clone()
    with torch.no_grad():
        copied = attempt(lambda: copy.deepcopy(model, memo))
    if isinstance(copied, Exception):
        raise TrialError(
            f"no trial: {type(model).__name__} cannot be copied ({describe(copied)}); "
            "give it a __deepcopy__, or set policy='hold'"
        ) from copied
    run_eagerly(copied)
    return copied
