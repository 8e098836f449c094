"""Recovery: notice a loss that is not finite, go back to the last good state, name who did it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, SupportsFloat

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from kasmina import Executor, is_finite
from leyline import ConfigError, NonFiniteError, SeedReport, Stage
from tolaria.snapshot import Snapshot

MAX_UNEXPLAINED: Final = 3
"""Rollbacks without a seed to blame, no whole epoch between them, after which the run stops."""
_IN_FORWARD: Final = (
    Stage.GRAFTING,
    Stage.STABILIZATION,
    Stage.EVALUATING,
    Stage.FINE_TUNING,
)


class LossWatch:
    """Reads losses without making a GPU wait: a device loss is read when the next one arrives."""

    def __init__(self) -> None:
        self._pending: Tensor | None = None

    def observe(self, loss: Tensor | float | None) -> float | None:
        """Take this step's loss; returns the newest one that can be read, None if there is none.

        Raises:
            ConfigError: it is not one number.
        """
        if loss is None:
            return None
        if isinstance(loss, Tensor) and loss.numel() == 1:
            if loss.device.type == "cpu":
                return float(loss.detach())
            ready, self._pending = self._pending, loss.detach().clone()
            return None if ready is None else float(ready)
        if isinstance(loss, Tensor) or not isinstance(loss, SupportsFloat):
            what = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            kind = "a tensor of shape " if isinstance(loss, Tensor) else "a "
            raise ConfigError(f"loss is {kind}{what}; give one number, such as the loss's mean")
        return float(loss)


class Recovery:
    """The fast tier: a snapshot before every boundary's change, restored when a loss breaks."""

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        executor: Executor,
        embargo_epochs: int,
    ):
        self._model = model
        self._optimizers = optimizers
        self._executor = executor
        self._embargo_epochs = embargo_epochs
        self._num_unexplained = 0
        self._undisturbed = True
        self.snapshot = Snapshot()

    def take(self, epoch: int, step: int) -> None:
        """Remember the state as good, unless a parameter is not finite."""
        if not _all_finite(self._model):
            return
        self.snapshot.take(self._model, self._optimizers, epoch=epoch, step=step)
        if self._undisturbed:
            self._num_unexplained = 0
        self._undisturbed = True

    def recover(self, loss: float, batch: Any, *, epoch: int, step: int) -> list[SeedReport]:
        """Restore the last good state and take out the seeds that are not settled.

        Args:
            loss: the value that was read.
            batch: the batch it came from, or None.
            epoch: the running epoch, from 1.
            step: the running step, from 1.

        Returns:
            What happened to the seeds that were taken out; empty if there was none to blame.

        Raises:
            NonFiniteError: the batch itself is not finite, there is nothing to go back to, or it
                happened too often without a seed to blame. The weights are the last good ones.
        """
        where = f"loss is {loss:g} at epoch {epoch}, step {step}"
        self._undisturbed = False
        if self.snapshot.epoch is not None:
            self.snapshot.restore(self._model, self._optimizers)
        if batch is not None and not is_finite(batch):
            raise NonFiniteError(
                f"{where}: the training batch itself holds NaN or infinity; clean the data "
                "(the weights are those of the last epoch's end)"
            )
        if self.snapshot.epoch is None:
            raise NonFiniteError(
                f"{where}, before there was a good state to go back to; lower the learning rate "
                "or check the loss"
            )
        cause = f"{where}; the run was restored to the end of epoch {self.snapshot.epoch}"
        reports = [
            self._executor.roll_back(seed, epoch, cause, self._embargo_epochs)
            for seed in self._executor.table.in_stage(*_IN_FORWARD)
        ]
        if reports:
            self._num_unexplained = 0
        else:
            self._num_unexplained += 1
            if self._num_unexplained >= MAX_UNEXPLAINED:
                raise NonFiniteError(
                    f"{where}: {MAX_UNEXPLAINED} times in a row without a seed to blame; lower "
                    "the learning rate or check the loss (the weights are the last good ones)"
                )
        return reports

    @property
    def num_unexplained(self) -> int:
        """Rollbacks without a seed to blame, since the last epoch that had none."""
        return self._num_unexplained


def _all_finite(model: nn.Module) -> bool:
    """Whether every parameter is free of NaN and infinity, in one read from the device."""
    floating = [p.detach() for p in model.parameters() if p.is_floating_point()]
    # A half-precision sum would overflow where no parameter does.
    sums = [p.sum(dtype=torch.promote_types(p.dtype, torch.float32)) for p in floating]
    return not sums or bool(torch.stack([torch.isfinite(total) for total in sums]).all())
