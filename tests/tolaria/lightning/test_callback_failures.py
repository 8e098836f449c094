"""The Lightning callback in runs that fail: errors, losses that are not finite, refusals."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import kasmina
from leyline import ConfigError, Fault, NonFiniteError
from tests.tolaria.lightning.models import (
    MLP,
    NUM_TRAIN,
    PLANT,
    SITE,
    AtEpochEnd,
    Losses,
    assert_same_tensors,
    children,
    esper,
    fit,
    held_out_loader,
    listen,
    quiet_trainer,
    seed_streams,
    stages,
    weights,
)
from tolaria import EsperCallback
from tolaria.disk.run import RunDirectory
from tolaria.lightning.trainer import refuse_unsupported

SEED = f"{SITE}/0"


# --- runs that fail ------------------------------------------------------------------------------


class Fails(MLP):
    """Raises what it is told to in the second step of the second epoch."""

    error: BaseException = RuntimeError("the user's own")

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.current_epoch == 1 and batch_idx == 1:
            raise self.error
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("telemetry", ["off", "memory", "embedded"])
def test_a_users_error_closes_the_run(tmp_path: Path, telemetry: str) -> None:
    """An error leaves unchanged: lock free, server and threads gone, status failed."""
    threads, processes = threading.active_count(), children()
    seen: list[int] = []
    callback = esper(tmp_path / "run", telemetry=telemetry, schedule=PLANT)
    count = AtEpochEnd(lambda *_: seen.append(len(children() - processes)))
    with pytest.raises(RuntimeError) as caught:
        fit(Fails, [callback, count])
    assert caught.value is Fails.error
    assert seen == [1 if telemetry == "embedded" else 0]
    assert children() <= processes
    assert threading.active_count() == threads
    assert callback.report()["status"] == "failed"
    RunDirectory.open(tmp_path / "run").close()


def test_ctrl_c_leaves_an_interrupted_run(tmp_path: Path) -> None:
    """KeyboardInterrupt closes the run as interrupted, with the last boundary's checkpoint and a
    report; Lightning then exits as it always does."""
    callback = esper(tmp_path / "run", checkpoint=True)

    class Interrupted(Fails):
        error = KeyboardInterrupt()

    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit):
            fit(Interrupted, [callback])
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning leaves it ignored
    assert callback.report()["status"] == "interrupted"
    RunDirectory.open(tmp_path / "run").close()
    assert len(list((tmp_path / "run" / "checkpoints" / "active").iterdir())) == 1
    assert (tmp_path / "run" / "report.html").is_file()


class Told(MLP):
    """Is told by the system to stop."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return super().training_step(batch, batch_idx)


def test_a_sigterm_leaves_an_interrupted_run(tmp_path: Path) -> None:
    """Lightning ends the fit after that batch; the run is closed as interrupted, not as failed."""
    callback = esper(tmp_path / "run")
    with pytest.raises(SIGTERMException):
        fit(Told, [callback])
    assert callback.report()["status"] == "interrupted"
    RunDirectory.open(tmp_path / "run").close()


def test_a_boundary_that_is_refused_closes_the_run(tmp_path: Path) -> None:
    """A schedule's unknown site ends the fit with the sites there are, and frees the directory."""
    callback = esper(tmp_path / "run", schedule=((1, "net.7", "norm"),))
    with pytest.raises(ConfigError, match=r"'net\.7', which is not a site; sites are net, net\.0"):
        fit(MLP, [callback])
    assert callback.report()["status"] == "failed"
    RunDirectory.open(tmp_path / "run").close()


# --- losses that are not finite ------------------------------------------------------------------


class Poisoned(MLP):
    """Feeds itself a batch with a NaN."""

    @staticmethod
    def data(length: int, rng_seed: int) -> TensorDataset:
        inputs, labels = MLP.data(length, rng_seed)[:]
        if length == NUM_TRAIN:
            inputs[13, 2] = float("nan")
        return TensorDataset(inputs, labels)


def test_a_batch_with_nan_is_named(tmp_path: Path) -> None:
    """A NaN in the data stops the run with epoch and step, and leaves finite weights."""
    seed_streams(0)
    model = Poisoned()
    callback = esper(tmp_path / "run", schedule=PLANT)
    trainer = quiet_trainer(callbacks=[callback])
    loader = DataLoader(model.data(NUM_TRAIN, 1), batch_size=8)
    with pytest.raises(NonFiniteError, match=r"epoch 1, step 2 .*: the training batch itself"):
        trainer.fit(model, loader, held_out_loader(model))
    assert all(bool(torch.isfinite(value).all()) for value in weights(model).values())
    assert callback.report()["status"] == "failed"


class Explodes(nn.Module):
    """A body whose output is finite, but far too large, once it was trained live for some steps."""

    def __init__(self, shape: kasmina.SiteShape):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(shape.channels))
        self.calls_live = 0

    def forward(self, host: Tensor) -> Tensor:
        return host * self.scale * (1.0 if self.scale.abs().sum() < LIMIT else 1e12)


LIMIT = 0.002
"""Size at which an exploding seed does so: larger than a trial of four small steps reaches."""
kasmina.register("explodes", Explodes)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_seed_that_breaks_the_loss_is_rolled_back(tmp_path: Path, optimizer: str) -> None:
    """A loss that is NaN with a seed in the forward path, though the seed's own output is finite,
    restores the last boundary, and training goes on."""
    callback = esper(tmp_path / "run", schedule=((1, SITE, "explodes"),), trial_learning_rate=1e-5)
    events = listen(callback)
    at_boundary: list[dict[str, Tensor]] = []

    class AfterRollback(Losses):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
            if stages(callback).get(SEED) == "ROLLED_BACK" and not self.weights:
                self.weights.append(weights(pl_module))

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None: ...

    def keep(trainer: Any, model: Any) -> None:
        if not any(isinstance(e, Fault) for e in events):
            plain = {n: v for n, v in weights(model).items() if "esper" not in n}
            at_boundary.append(plain)

    def fast(parameters: Any) -> torch.optim.Optimizer:
        kind = torch.optim.AdamW if optimizer == "adamw" else torch.optim.SGD
        return kind(parameters, lr=0.1)

    class Fast(MLP):
        def configure_optimizers(self) -> Any:
            return fast(self.parameters())

        def forward(self, inputs: Tensor) -> Tensor:
            logits = super().forward(inputs)
            return logits if logits.abs().max() < 1e6 else logits * torch.nan

    after = AfterRollback()
    trainer, model = fit(Fast, [callback, after, AtEpochEnd(keep)], max_epochs=6)
    (fault,) = [e for e in events if isinstance(e, Fault)]
    assert fault.where == "loss"
    assert SEED in fault.action
    assert stages(callback) == {SEED: "ROLLED_BACK"}
    assert_same_tensors(after.weights[0], at_boundary[-1])
    assert trainer.current_epoch == 6
    assert all(bool(torch.isfinite(value).all()) for value in weights(model).values())
    assert len(trainer.optimizers[0].param_groups) == 1


# --- refusals ------------------------------------------------------------------------------------


def test_averaging_is_refused_by_name(tmp_path: Path) -> None:
    """A callback that averages weights by position is refused before anything is opened."""
    swa = StochasticWeightAveraging(swa_lrs=0.01)
    with pytest.raises(ConfigError, match="StochasticWeightAveraging averages parameters"):
        fit(MLP, [esper(tmp_path / "run"), swa])
    assert list(tmp_path.iterdir()) == []


def test_distributed_runs_are_refused_by_name() -> None:
    """More than one process, and strategies that split the model, are refused."""
    trainer = quiet_trainer()
    refuse_unsupported(trainer)
    trainer.strategy.__class__ = type("FSDPStrategy", (type(trainer.strategy),), {})
    with pytest.raises(ConfigError, match="strategy FSDPStrategy cannot grow yet"):
        refuse_unsupported(trainer)
    two = quiet_trainer(devices=2, strategy="ddp")
    with pytest.raises(ConfigError, match="runs 2 processes"):
        refuse_unsupported(two)


def test_a_wrong_setting_names_the_right_one() -> None:
    """An unknown argument is refused where it is written, with the name that was meant."""
    with pytest.raises(ConfigError, match="no setting 'moniter'; did you mean 'monitor'"):
        EsperCallback(moniter="val_loss")
    with pytest.raises(ConfigError, match=r"policy.*one of heuristic, schedule, random, hold"):
        EsperCallback({"policy": "grow"})


def test_an_absent_monitor_names_those_there_are(tmp_path: Path) -> None:
    """A monitor that nobody logs ends the first epoch with the names that were logged."""
    callback = esper(tmp_path / "run", monitor="val_acc")
    with pytest.raises(
        ConfigError, match=r"'val_acc', which was not logged; logged are .*val_loss"
    ):
        fit(MLP, [callback])
