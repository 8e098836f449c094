"""The shadow: a frozen copy of the host on which candidates train without the host noticing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from kasmina.equality import is_same
from kasmina.slots.grafted_seed import GraftedSeed
from kasmina.slots.slot import attach_seed, detach_seed
from kasmina.trials.carried import Carried
from kasmina.trials.task import Task
from leyline import TrialError

HELD_OUT_RNG_SEED: Final = 0
"""Stream of every held-out pass: a loss that draws numbers draws the same with and without."""
MAX_GRADIENT_NORM: Final = 1.0
"""Gradients of a candidate are clipped to this norm in every trial step."""


class Shadow:
    """A copy of the live model, its parameters and buffers frozen.

    The copy is taken once; whatever happens to it stays in it.
    """

    def __init__(self, task: Task):
        self._task = task
        self.model = task.copy()
        self._trained = [name for name, p in self.model.named_parameters() if p.requires_grad]
        self.model.requires_grad_(False)
        for module in self.model.modules():
            if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
                module.dropout = 0.0  # noise of their own, which no dropout module makes
        self._buffers = {n: b.detach().clone() for n, b in self.model.named_buffers()}
        self._carried = Carried(self.model)

    def thaw(self) -> list[nn.Parameter]:
        """Let those parameters of the copy train that do in the live model; it is no shadow more.

        Returns:
            These parameters.
        """
        trained = [self.model.get_parameter(name) for name in self._trained]
        for parameter in trained:
            parameter.requires_grad_(True)
        return trained

    def loss(self, batch: Any) -> Tensor:
        """The task's loss on one batch, 0-dim, with the graph of what is trained on the shadow."""
        with self._task.context():
            return self._task.loss(self.model, batch)

    def mode(self, *, training: bool) -> None:
        """Train mode with norms and dropouts of the host left in eval, or eval mode altogether.

        Losses often look at `self.training`, so the mode is the live one; statistics and noise of
        the host are part of what is frozen.
        """
        self.model.train(training)
        if training:
            for module in self.model.modules():
                if isinstance(module, _NormBase | _DropoutNd):
                    module.eval()

    def restore_buffers(self) -> None:
        """Put the buffers, and tensors in plain attributes, back to what the copy was born with."""
        self._carried.restore()
        with torch.no_grad():
            for name, buffer in self.model.named_buffers():
                if name in self._buffers:
                    buffer.copy_(self._buffers[name])

    def buffers_moved(self) -> bool:
        """Whether any buffer is other than when the copy was taken."""
        return any(
            name in self._buffers and not is_same(buffer, self._buffers[name])
            for name, buffer in self.model.named_buffers()
        )

    @contextmanager
    def carrying(self, site: str, seed: GraftedSeed) -> Iterator[None]:
        """Hang a seed on the shadow at alpha 1 for the length of a block."""
        module = self.model.get_submodule(site)
        attach_seed(site, module, seed)
        seed.blend(1.0)
        try:
            yield
        finally:
            detach_seed(module, seed)

    def held_out_losses(self, batches: Sequence[Any]) -> Tensor:
        """The loss of each batch in eval mode without gradients, float64 [num_batches].

        Buffers are those of the copy's birth, wherever training steps have moved them since.
        """
        self.mode(training=False)
        self.restore_buffers()
        with torch.no_grad():
            losses = [self.loss(batch).detach().double().cpu() for batch in batches]
        return torch.stack(losses)


def paired_gain(before: Tensor, after: Tensor) -> tuple[float, float]:
    """Mean of before - after, and its standard error over the pairs.

    Args:
        before: losses without the seed, [num_batches].
        after: losses with it, on the same batches.

    Returns:
        (gain, error) in the loss's unit; the error is NaN for fewer than two pairs.
    """
    difference = before - after
    error = difference.std() / difference.numel() ** 0.5 if difference.numel() > 1 else torch.nan
    return float(difference.mean()), float(error)


def train_batch(shadow: Shadow, batch: Any, seed: nn.Module, optimizer: Any) -> None:
    """One trial step: the seed's parameters move, nothing else does."""
    descend(lambda: shadow.loss(batch), seed, optimizer)


def descend(loss: Callable[[], Tensor], seed: nn.Module, optimizer: Any) -> Tensor:
    """One step of a seed down its loss, the gradient clipped.

    Returns:
        The loss before the step, 0-dim and without its graph.

    Raises:
        TrialError: the loss does not depend on the seed.
    """
    optimizer.zero_grad(set_to_none=True)
    with torch.enable_grad():
        value = loss()
    if not value.requires_grad and getattr(seed, "fault", None) is None:
        raise TrialError("the site's output does not reach the loss")
    torch.autograd.backward(value)
    nn.utils.clip_grad_norm_(seed.parameters(), MAX_GRADIENT_NORM)
    optimizer.step()
    return value.detach()
