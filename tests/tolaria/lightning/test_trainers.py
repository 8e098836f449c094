"""Both copies of Lightning, and what a Trainer may be given beside Esper."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import pytorch_lightning as other_lightning
import torch
from lightning.pytorch.callbacks import RichProgressBar
from pytorch_lightning.callbacks import EMAWeightAveraging, LearningRateMonitor, ModelCheckpoint
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

import tolaria
from kasmina.slots.slot import attached_seeds
from leyline import ConfigError, Fault, SeedReport
from tests.tolaria.lightning.models import (
    BATCH_SIZE,
    MLP,
    NUM_CLASSES,
    NUM_FEATURES,
    NUM_HELD_OUT,
    NUM_TRAIN,
    PLANT,
    SITE,
    STEPS_PER_EPOCH,
    Losses,
    assert_same_run,
    assert_same_tensors,
    esper,
    fit,
    listen,
    seed_streams,
    stages,
    tabular,
    weights,
)

SEED = f"{SITE}/0"


# --- pytorch_lightning ---------------------------------------------------------------------------


class OtherModule(other_lightning.LightningModule):
    """A module of the other copy of Lightning, which logs in its steps."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(NUM_FEATURES, 8), nn.ReLU(), nn.Dropout(0.25))
        self.head = nn.Linear(8, NUM_CLASSES)

    def _loss(self, batch: Any) -> Tensor:
        return functional.cross_entropy(self.head(self.net(batch[0])), batch[1])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self._loss(batch)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self._loss(batch))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)]


def _fit_other(callbacks: list[Any], num_epochs: int, **options: Any) -> tuple[Any, Any]:
    seed_streams(3)
    model = OtherModule()
    trainer = other_lightning.Trainer(
        max_epochs=num_epochs,
        callbacks=callbacks,
        accelerator="cpu",
        devices=1,
        logger=options.pop("logger", False),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        gradient_clip_val=0.5,
    )
    loaders = [
        DataLoader(tabular(NUM_TRAIN, 1), batch_size=BATCH_SIZE, shuffle=True),
        DataLoader(tabular(NUM_HELD_OUT, 2), batch_size=BATCH_SIZE),
    ]
    trainer.fit(model, *loaders, **options)
    return trainer, model


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists:UserWarning")
@pytest.mark.filterwarnings("ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning")
def test_the_other_lightning_grows_and_resumes(tmp_path: Path) -> None:
    """A pytorch_lightning Trainer and module grow with a real trial, beside an average and a
    logger, and its .ckpt resumes bit-identical."""

    def run(name: str, **options: Any) -> tuple[Any, Any, list[Any]]:
        callback = esper(tmp_path / name, schedule=PLANT, veto=False)
        events = listen(callback)
        logger = other_lightning.loggers.CSVLogger(tmp_path / f"{name} logs")
        beside = [EMAWeightAveraging(decay=0.9), LearningRateMonitor()]
        keep = ModelCheckpoint(tmp_path / "kept", filename="{epoch}", save_top_k=-1)
        fitted = _fit_other([callback, *beside, keep], 7, logger=logger, **options)
        return fitted, callback, events

    whole, callback, events = run("whole")
    assert stages(callback) == {SEED: "FOSSILIZED"}
    assert [event for event in events if isinstance(event, Fault)] == []
    assert [event for event in events if isinstance(event, SeedReport) and event.refused] == []
    assert callback.report()["seeds"][0]["trial_gain"] is not None
    resumed, again, _ = run("resumed", ckpt_path=tmp_path / "kept" / "epoch=3.ckpt")
    assert_same_run(whole, resumed)
    assert stages(again) == stages(callback)
    loaded = tolaria.load_from_checkpoint(OtherModule, tmp_path / "kept" / "epoch=6.ckpt")
    assert type(loaded) is OtherModule
    assert len(attached_seeds(loaded)) == 1


@pytest.mark.filterwarnings("ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning")
def test_growth_that_is_off_changes_nothing_of_the_other_lightning(tmp_path: Path) -> None:
    """With policy='hold' a run of pytorch_lightning is that without Esper, bit for bit."""
    callback = esper(tmp_path / "run", checkpoint=True)
    assert_same_run(_fit_other([], 2), _fit_other([callback], 2))


# --- beside Esper --------------------------------------------------------------------------------


def test_a_progress_bar_and_a_whole_number_of_steps_between_validations(tmp_path: Path) -> None:
    """RichProgressBar, and validation every four batches, counted across epochs, with growth."""
    callback = esper(tmp_path / "run", schedule=PLANT, veto=False)
    bar = RichProgressBar()
    options = {"enable_progress_bar": True, "val_check_interval": 4}
    fit(MLP, [callback, bar], max_epochs=7, check_val_every_n_epoch=None, **options)
    assert stages(callback) == {SEED: "FOSSILIZED"}
    assert callback.report()["faults"] == []


def test_a_run_without_time_closes_in_order(tmp_path: Path) -> None:
    """A run whose max_time is up before its first step has no boundary, and is finished."""
    callback = esper(tmp_path / "run", schedule=PLANT, checkpoint=True)
    trainer, _ = fit(MLP, [callback], max_epochs=9, max_time={"seconds": 0})
    assert trainer.global_step == 0
    assert callback.report()["boundaries"] == []
    assert callback.report()["status"] == "finished"


def test_a_run_that_is_stopped_within_an_epoch_passes_its_boundary(tmp_path: Path) -> None:
    """should_stop in the middle of the second epoch, as a Timer sets it: a boundary for what there
    was of it, and the run is finished."""

    class Stops(pl.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            trainer.should_stop = trainer.global_step == STEPS_PER_EPOCH + 2

    callback = esper(tmp_path / "run", schedule=PLANT, checkpoint=True)
    trainer, _ = fit(MLP, [callback, Stops()], max_epochs=9)
    assert trainer.global_step == STEPS_PER_EPOCH + 2
    assert [boundary["epoch"] for boundary in callback.report()["boundaries"]] == [1, 2]
    assert callback.report()["status"] == "finished"


def test_steps_that_end_within_an_epoch_end_the_run_in_order(tmp_path: Path) -> None:
    """max_steps in the middle of an epoch: a boundary for what there was, and a checkpoint."""
    callback = esper(tmp_path / "run", schedule=PLANT, checkpoint=True)
    fit(MLP, [callback], max_epochs=-1, max_steps=2 * STEPS_PER_EPOCH + 2)
    assert [boundary["epoch"] for boundary in callback.report()["boundaries"]] == [1, 2, 3]
    assert callback.orchestrator.step == 2 * STEPS_PER_EPOCH + 2
    assert callback.report()["status"] == "finished"


# --- hooks ---------------------------------------------------------------------------------------


class Counts(tolaria.EsperCallback):
    """A user's own subclass, which uses a hook that Esper leaves idle."""

    num_starts = 0

    def on_train_batch_start(self, *args: Any) -> None:
        super().on_train_batch_start(*args)
        self.num_starts += 1


def test_hooks_that_do_nothing_are_not_called(tmp_path: Path) -> None:
    """During a fit Lightning profiles, of Esper, only hooks that do something in it; a subclass's
    own hook is called, and afterwards every hook is there again."""
    called: set[str] = set()

    class Profiler(pl.profilers.PassThroughProfiler):
        def start(self, action_name: str) -> None:
            if action_name.startswith("[Callback]"):
                called.add(action_name.rpartition(".")[2])

    callback = Counts(policy="hold", telemetry="off", run_dir=str(tmp_path / "run"))
    fit(MLP, [callback], max_epochs=1, profiler=Profiler())
    assert callback.num_starts == STEPS_PER_EPOCH
    assert {"on_train_batch_start", "on_train_batch_end", "on_train_epoch_end"} <= called
    idle = {"on_before_zero_grad", "on_before_backward", "on_after_backward"}
    assert not called & {*idle, "on_before_optimizer_step", "on_validation_batch_start"}
    assert all(callable(getattr(callback, name)) for name in idle)


# --- memory --------------------------------------------------------------------------------------


def test_an_ended_run_keeps_neither_trainer_nor_batches(tmp_path: Path) -> None:
    """While the callback and the model are still there, nothing of Esper holds the trainer of an
    ended fit, nor the batches kept for trials; without the callback nothing holds the model."""
    callback = esper(tmp_path / "run", schedule=PLANT, veto=False)
    kept: list[int] = []

    class Look(pl.Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            source = callback.orchestrator.growth.search._source
            kept.append(len(source.train_batches()))

    trainer, model = fit(MLP, [Look(), callback], max_epochs=2)
    source = callback.orchestrator.growth.search._source
    assert max(kept) == STEPS_PER_EPOCH
    assert source.train_batches() == source.held_out_batches() == []
    gone, module = weakref.ref(trainer), weakref.ref(model)
    model.trainer = None  # Lightning's own reference
    del trainer
    gc.collect()
    assert gone() is None
    callback = source = model = None
    gc.collect()
    assert module() is None


def test_two_trainers_side_by_side(tmp_path: Path) -> None:
    """A run that begins and ends inside another one's step leaves both as they are alone."""

    def alone(rng_seed: int) -> Any:
        callback = esper(tmp_path / f"alone {rng_seed}", schedule=PLANT)
        return fit(MLP, [callback, losses := Losses()], rng_seed=rng_seed), losses

    inner, outer = alone(4), alone(3)
    found: list[Any] = []

    class Within(pl.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == STEPS_PER_EPOCH + 2:
                streams = torch.get_rng_state()
                found.append(fit(MLP, [esper(tmp_path / "in", schedule=PLANT)], rng_seed=4))
                torch.set_rng_state(streams)

    callback = esper(tmp_path / "out", schedule=PLANT)
    both, losses = fit(MLP, [callback, Within(), kept := Losses()], rng_seed=3), kept
    assert_same_tensors(weights(outer[0][1]), weights(both[1]))
    assert all(map(torch.equal, outer[1].losses, losses.losses))
    assert_same_tensors(weights(inner[0][1]), weights(found[0][1]))


def test_an_old_average_of_lightning_is_refused(tmp_path: Path) -> None:
    """Stochastic weight averaging of either Lightning is refused with what to use instead."""
    swa = other_lightning.callbacks.StochasticWeightAveraging(swa_lrs=0.01)
    with pytest.raises(ConfigError, match="use EMAWeightAveraging or WeightAveraging"):
        _fit_other([esper(tmp_path / "run"), swa], 1)
