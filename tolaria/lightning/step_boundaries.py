"""Step boundaries under Lightning: only between an optimizer step and the next forward."""

from __future__ import annotations

import math

import lightning.pytorch as pl

from tolaria.live_run import LiveRun


class StepBoundaries:
    """Says after which batches a boundary may be passed within an epoch.

    Gradients may be accumulating after a batch that no optimizer step followed, so it has to wait
    for one; the last batch's boundary is that of the epoch.
    """

    def __init__(self, trainer: pl.Trainer, esper: LiveRun):
        self._trainer = trainer
        self._esper = esper
        self._is_wanted = esper.config.boundary_every_steps is not None
        self._num_updates = trainer.global_step

    def plan(self, num_past: int) -> None:
        """Tell the run how many boundaries it will have, once the batches are counted.

        Args:
            num_past: boundaries before this fit began its first epoch.
        """
        every, trainer = self._esper.config.boundary_every_steps, self._trainer
        if every is None or self._esper.config.num_epochs is not None:
            return
        num_batches, num_epochs = trainer.num_training_batches, trainer.max_epochs
        if num_epochs is None or num_epochs < 0 or not math.isfinite(num_batches):
            self._esper.num_epochs = 0
            return
        accumulated = trainer.accumulate_grad_batches
        stretch = math.ceil(every / accumulated) * accumulated
        num_left = num_epochs - trainer.current_epoch
        self._esper.num_epochs = num_past + num_left * math.ceil(num_batches / stretch)

    def is_due(self) -> bool:
        """Whether one is to be passed after the batch that has just ended."""
        if not self._is_wanted:
            return False
        before, self._num_updates = self._num_updates, self._trainer.global_step
        return (
            self._num_updates > before
            and self._esper.boundary_is_due
            and not self._trainer.is_last_batch
        )
