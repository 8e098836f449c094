"""Resuming through Lightning's own `ckpt_path`, with grown structure, bit for bit."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.optim import Optimizer, lr_scheduler

import kasmina
from leyline import Fault
from tests.tolaria.lightning.models import (
    MLP,
    PLANT,
    SITE,
    AtEpochEnd,
    ConvNet,
    Losses,
    assert_same_run,
    assert_same_tensors,
    esper,
    fit,
    held_out_loader,
    listen,
    optimizer_state,
    quiet_trainer,
    stages,
    train_loader,
    weights,
)
from tolaria.disk.checkpoint import order

# Lightning warns of the directory that a resumed run goes on in.
pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists:UserWarning")

SEED = f"{SITE}/0"
THREE = ((1, "head", "low_rank"), (2, SITE, "bottleneck_mlp"), (2, SITE, "norm"))
"""Seeds whose groups are not in the order of the model's submodules."""


def by_step(optimizer: Optimizer) -> dict[str, Any]:
    scheduler = lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=60)
    return {"scheduler": scheduler, "interval": "step"}


def saver(folder: Path, **options: Any) -> ModelCheckpoint:
    """Keeps a .ckpt of every epoch; Lightning wants the same callback in the run that resumes."""
    return ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, **options)


class StopsAt(pl.Callback):
    """Ends the fit before a step."""

    def __init__(self, step: int):
        self._step = step

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self._step:
            raise ZeroDivisionError


def by_plateau(optimizer: Optimizer) -> dict[str, Any]:
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=1.0)
    return {"scheduler": scheduler, "monitor": "val_loss"}


class SizedByTrainer(MLP):
    """Asks for the number of steps, for which Lightning sets the data up before the fit."""

    def configure_optimizers(self) -> Any:
        assert self.trainer.estimated_stepping_batches > 0
        return super().configure_optimizers()


BUILDS = [
    pytest.param(partial(MLP, "adamw", by_step), id="MLP-adamw", marks=pytest.mark.slow),
    pytest.param(partial(ConvNet, "sgd", by_step), id="ConvNet-sgd"),
]


@pytest.mark.slow
@pytest.mark.parametrize("build", BUILDS)
def test_lightnings_checkpoint_goes_on_bit_identical(tmp_path: Path, build: Any) -> None:
    """A run stopped after N epochs ends as the one that never stopped, from its .ckpt."""
    first = esper(tmp_path / "first", schedule=THREE, veto=False)
    whole = fit(build, [first, saver(tmp_path)], max_epochs=5)
    for number in (1, 2, 3):
        second = esper(tmp_path / f"second {number}", schedule=THREE, veto=False)
        path = tmp_path / f"epoch={number}.ckpt"
        callbacks = [second, saver(tmp_path)]
        resumed = fit(build, callbacks, max_epochs=5, ckpt_path=path, rng_seed=7)
        assert_same_run(whole, resumed)
        assert stages(first) == stages(second)
        assert len(stages(second)) == 3
        assert second.report()["faults"] == []


@pytest.mark.parametrize(
    "build",
    [
        partial(MLP, "adamw", by_plateau),
        pytest.param(partial(ConvNet, "sgd", by_step), marks=pytest.mark.slow),
    ],
)
def test_stopped_within_epochs_again_and_again_it_ends_in_the_same_bits(
    tmp_path: Path, build: Any
) -> None:
    """Each time it goes on from the newest checkpoint, also where it was resumed in that very epoch
    and has saved the state that it began with."""
    options = {"schedule": THREE, "veto": False, "checkpoint": True}
    whole = fit(build, [esper(tmp_path / "whole", **options)], max_epochs=5)
    path = None
    for step in (9, 10, 11, 14, 19, 20):
        callbacks = [esper(tmp_path / "run", **options), StopsAt(step)]
        with pytest.raises(ZeroDivisionError):
            fit(build, callbacks, max_epochs=5, ckpt_path=path)
        path = max((tmp_path / "run" / "checkpoints" / "active").iterdir(), key=order)
    resumed = fit(build, [esper(tmp_path / "run", **options)], max_epochs=5, ckpt_path=path)
    assert_same_run(whole, resumed)


@pytest.mark.parametrize(
    "build",
    [
        *BUILDS,
        pytest.param(
            partial(ConvNet, "adamw", lambda o: lr_scheduler.StepLR(o, 1, gamma=0.5)),
            id="ConvNet-adamw-StepLR",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            partial(SizedByTrainer, "sgd"), id="estimated-stepping-batches", marks=pytest.mark.slow
        ),
    ],
)
def test_espers_checkpoint_goes_on_bit_identical(tmp_path: Path, build: Any) -> None:
    """A directory under run_dir/checkpoints is a ckpt_path, and continues exactly."""
    options = {"schedule": THREE, "veto": False, "checkpoint": True, "keep_checkpoints": 9}
    first = esper(tmp_path / "first", **options)
    whole = fit(build, [first], max_epochs=5)
    paths = sorted((tmp_path / "first" / "checkpoints" / "active").iterdir())
    assert len(paths) == 5
    for path in paths[:4]:
        second = esper(tmp_path / path.name, **options)
        resumed = fit(build, [second], max_epochs=5, ckpt_path=path, rng_seed=7)
        assert_same_run(whole, resumed)


def test_moments_go_to_their_own_parameters(tmp_path: Path) -> None:
    """Straight after resuming, every parameter has the optimizer state that was saved for it."""
    saved: dict[int, dict[str, torch.Tensor]] = {}
    loaded: dict[str, torch.Tensor] = {}

    def keep(trainer: pl.Trainer, model: Any) -> None:
        saved[trainer.current_epoch] = optimizer_state(trainer, model)

    class AtStart(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
            loaded.update(optimizer_state(trainer, pl_module))

    first = esper(tmp_path / "first", schedule=THREE, veto=False)
    fit(MLP, [first, AtEpochEnd(keep), saver(tmp_path)], max_epochs=4)
    second = esper(tmp_path / "second", schedule=THREE, veto=False)
    path = tmp_path / "epoch=3.ckpt"
    fit(MLP, [second, AtStart(), saver(tmp_path)], max_epochs=5, ckpt_path=path)
    assert_same_tensors(saved[3], loaded)


def test_a_resumed_run_in_its_own_directory_is_one_run(tmp_path: Path) -> None:
    """With the run_dir of the run that saved it, a checkpoint goes on in that directory."""
    build = partial(esper, tmp_path / "run", schedule=PLANT, checkpoint=True)
    first = build()
    fit(MLP, [first, saver(tmp_path)], max_epochs=3)
    again = build()
    path = tmp_path / "epoch=1.ckpt"
    resumed = fit(MLP, [again, saver(tmp_path)], max_epochs=5, ckpt_path=path)
    assert again.run_dir == first.run_dir
    assert [b["epoch"] for b in again.report()["boundaries"]] == [1, 2, 3, 4, 5]
    whole = fit(MLP, [esper(tmp_path / "whole", schedule=PLANT)], max_epochs=5)
    assert_same_run(whole, resumed)


def test_a_fault_just_after_resuming_keeps_the_optimizer_state(tmp_path: Path) -> None:
    """A NaN in the first step after resuming goes back to the weights and moments that came in."""

    class BreaksOnce(MLP):
        breaks = False

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            if self.breaks and self.trainer.current_epoch == 2 and batch_idx == 0:
                return loss * float("nan")
            return loss

    class Breaks(BreaksOnce):
        breaks = True

    class AfterFirstStep(Losses):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
            if not self.weights:
                self.weights.append(weights(pl_module))
                self.weights.append(optimizer_state(trainer, pl_module))

    saved: list[dict[str, torch.Tensor]] = []
    keep = AtEpochEnd(lambda t, m: saved.extend([weights(m), optimizer_state(t, m)]))
    fit(
        BreaksOnce,
        [esper(tmp_path / "first"), keep, saver(tmp_path)],
        max_epochs=2,
    )
    second = esper(tmp_path / "second")
    events = listen(second)
    path = tmp_path / "epoch=1.ckpt"
    after = AfterFirstStep()
    fit(Breaks, [second, after, saver(tmp_path)], max_epochs=3, ckpt_path=path)
    assert [e.where for e in events if isinstance(e, Fault)] == ["loss"]
    assert_same_tensors(saved[-2], after.weights[0])
    assert_same_tensors(saved[-1], after.weights[1])


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_any_grown_checkpoint_can_be_evaluated(tmp_path: Path, verb: str) -> None:
    """`test(ckpt_path=...)` takes checkpoints of more, fewer and no seeds, and leaves no files."""
    callback = esper(tmp_path / "run", schedule=PLANT)
    trainer, model = fit(MLP, [callback, saver(tmp_path)], max_epochs=3)
    options = {"dataloaders": held_out_loader(model), "verbose": False}
    for number, num_seeds in [(0, 0), (2, 1), (1, 1)]:
        getattr(trainer, verb)(model, ckpt_path=tmp_path / f"epoch={number}.ckpt", **options)
        assert sum("alpha" in name for name in model.state_dict()) == num_seeds
    elsewhere = esper(tmp_path / "untouched")
    fresh = MLP()
    other = quiet_trainer(callbacks=[elsewhere, saver(tmp_path)], enable_checkpointing=True)
    getattr(other, verb)(fresh, ckpt_path=tmp_path / "epoch=2.ckpt", **options)
    assert sum("alpha" in name for name in fresh.state_dict()) == 1
    assert not (tmp_path / "untouched").exists()
    plain = kasmina.detach(fresh)
    assert list(plain.state_dict()) == list(MLP().state_dict())
    assert not plain._load_state_dict_pre_hooks


def test_a_checkpoint_that_was_only_evaluated_is_not_resumed(tmp_path: Path) -> None:
    """After `validate(ckpt_path=...)` a fit begins at the beginning, as it does without Esper."""
    fit(MLP, [esper(tmp_path / "first"), saver(tmp_path)], max_epochs=2)
    callback = esper(tmp_path / "second")
    model = MLP()
    trainer = quiet_trainer(1, callbacks=[callback, saver(tmp_path)], enable_checkpointing=True)
    trainer.validate(model, held_out_loader(model), tmp_path / "epoch=1.ckpt", verbose=False)
    trainer.fit(model, train_loader(model), held_out_loader(model))
    assert [boundary["epoch"] for boundary in callback.report()["boundaries"]] == [1]


def test_a_checkpoint_from_within_an_epoch_can_be_gone_on_from(tmp_path: Path) -> None:
    """A mid-epoch .ckpt resumes and grows on, not exactly, and says so."""
    first = esper(tmp_path / "first", schedule=PLANT)
    keep = saver(tmp_path, every_n_train_steps=3, save_on_train_epoch_end=False)
    fit(MLP, [first, keep], max_epochs=4)
    assert len(list(tmp_path.glob("*.ckpt"))) >= 4
    for number, path in enumerate(sorted(tmp_path.glob("*.ckpt"))[1::2]):
        callback = esper(tmp_path / f"resumed {number}", schedule=PLANT, veto=False)
        events = listen(callback)
        keep = saver(tmp_path, every_n_train_steps=3, save_on_train_epoch_end=False)
        _, model = fit(MLP, [callback, keep], max_epochs=8, ckpt_path=path)
        (fault,) = [e for e in events if isinstance(e, Fault)]
        assert "from within an epoch" in fault.what
        assert all(bool(torch.isfinite(value).all()) for value in weights(model).values())
        assert stages(callback) == {SEED: "FOSSILIZED"}


class BreaksInFourthEpoch(MLP):
    """Its loss is NaN once, while the graft of the first planted seed has still to settle."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        is_bad = self.trainer.current_epoch == 3 and batch_idx == 1
        return loss * float("nan") if is_bad else loss


@pytest.mark.slow
def test_a_fault_after_resuming_goes_back_to_before_an_open_graft(tmp_path: Path) -> None:
    """The run that was stopped while the graft was open ends as the one that never stopped, and
    lost as many steps."""
    build = partial(BreaksInFourthEpoch, "adamw", by_step)
    options = {"schedule": PLANT, "checkpoint": True}
    callback = esper(tmp_path / "whole", **options)
    events = listen(callback)
    whole = fit(build, [callback], max_epochs=6)
    fit(build, [esper(tmp_path / "run", **options)], max_epochs=3)
    path = sorted((tmp_path / "run" / "checkpoints" / "active").iterdir())[-1]
    again = esper(tmp_path / "run", **options)
    later = listen(again)
    resumed = fit(build, [again], max_epochs=6, ckpt_path=path, rng_seed=7)
    told, told_later = ([e for e in of if isinstance(e, Fault)] for of in (events, later))
    assert [(f.where, f.action) for f in told] == [(f.where, f.action) for f in told_later]
    assert "1 epoch, " in told[0].action
    assert f"taken out: {SEED}" in told[0].action
    assert_same_run(whole, resumed)
