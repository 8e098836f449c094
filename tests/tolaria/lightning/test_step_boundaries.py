"""Boundaries within an epoch under Lightning: between two optimizer steps, never within one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest

from leyline import BoundaryTiming, Event, RunStarted, Stage
from tests.tolaria.lightning.models import (
    MLP,
    SITE,
    STEPS_PER_EPOCH,
    assert_same_run,
    esper,
    fit,
    stages,
)

NUM_EPOCHS = 3


class _Watch(pl.Callback):
    """Notes where each boundary is passed."""

    def __init__(self) -> None:
        self.passed_at: list[int] = []
        """Batches that were done in the epoch."""
        self.was_accumulating: list[bool] = []
        self._trainer: pl.Trainer | None = None
        self._num_batches = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._trainer = trainer

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        self._num_batches = args[2] + 1

    def hear(self, event: Event) -> None:
        if isinstance(event, BoundaryTiming):
            assert self._trainer is not None
            self.passed_at.append(self._num_batches)
            loop = self._trainer.fit_loop.epoch_loop
            self.was_accumulating.append(loop._should_accumulate())


@pytest.mark.parametrize(
    ("every", "accumulated", "in_an_epoch"),
    [(2, 1, [2, 4, 6]), (4, 1, [4, 6]), (2, 3, [3, 6]), (1, 2, [2, 4, 6]), (50, 1, [6])],
)
def test_a_boundary_waits_for_the_optimizer_step(
    every: int, accumulated: int, in_an_epoch: list[int], tmp_path: Path
) -> None:
    """After so many batches, or the first after them that ends an accumulation, and at the epoch's
    end, once; the run knows from its first epoch on how many there will be."""
    assert STEPS_PER_EPOCH == 6
    callback, watch = esper(tmp_path / "run", boundary_every_steps=every), _Watch()
    planned: list[int] = []
    callback.listeners.append(watch.hear)
    callback.listeners.append(
        lambda event: (
            planned.append(callback.orchestrator.num_epochs)
            if isinstance(event, BoundaryTiming) and callback.orchestrator
            else None
        )
    )
    fit(MLP, [watch, callback], max_epochs=NUM_EPOCHS, accumulate_grad_batches=accumulated)
    assert watch.passed_at == in_an_epoch * NUM_EPOCHS
    assert not any(watch.was_accumulating)
    assert callback.orchestrator is not None
    assert callback.orchestrator.epoch == NUM_EPOCHS * len(in_an_epoch)
    assert set(planned) == {callback.orchestrator.epoch}


def test_an_endless_run_has_no_number_of_boundaries(tmp_path: Path) -> None:
    """Where the number of epochs is not known, policies are told 0."""
    callback = esper(tmp_path / "run", boundary_every_steps=3)
    fit(MLP, [callback], max_epochs=-1, max_steps=12)
    assert callback.orchestrator is not None
    assert (callback.orchestrator.num_epochs, callback.orchestrator.epoch) == (0, 4)


def test_a_run_with_boundaries_within_its_epochs_is_not_disturbed_by_them(tmp_path: Path) -> None:
    """With growth off it ends bit-identical to one without Esper."""
    plain = fit(MLP, max_epochs=NUM_EPOCHS)
    callback = esper(tmp_path / "run", boundary_every_steps=2)
    assert_same_run(plain, fit(MLP, [callback], max_epochs=NUM_EPOCHS))


@pytest.mark.parametrize(
    ("every", "accumulated"), [pytest.param(1, 1, marks=pytest.mark.slow), (4, 3)]
)
def test_a_run_resumed_at_an_epoch_s_end_ends_as_the_undisturbed_one(
    every: int, accumulated: int, tmp_path: Path
) -> None:
    """With a boundary after each of six batches, and after four where three make one step, a seed
    that has been grafted, and a stop after the second epoch: the rest of the resumed run is that of
    the undisturbed one, bit for bit."""
    trainer = {"max_epochs": 5, "accumulate_grad_batches": accumulated}
    settings = {
        "boundary_every_steps": every,
        "schedule": ((1, SITE, "bottleneck_mlp"),),
        "checkpoint": True,
        "veto": False,
    }
    whole = fit(MLP, [esper(tmp_path / "whole", **settings)], **trainer)
    callback = esper(tmp_path / "run", **settings)
    fit(MLP, [callback], **{**trainer, "max_epochs": 2})
    assert callback.run_dir is not None
    checkpoint = sorted((callback.run_dir / "checkpoints" / "active").iterdir())[-1]
    later = esper(tmp_path / "run", **settings)
    heard: list[Event] = []
    later.listeners.append(heard.append)
    resumed = fit(MLP, [later], ckpt_path=checkpoint, **trainer)
    assert any(isinstance(event, RunStarted) and event.resumed for event in heard)
    assert stages(later)[f"{SITE}/0"] not in (Stage.DORMANT.name, Stage.TRAINING.name)
    assert_same_run(whole, resumed)
