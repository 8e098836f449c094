"""Small LightningModules, their data, and one way to run them, for tests under real Lightning."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Dataset, TensorDataset

from leyline import Event
from tolaria import EsperCallback

NUM_FEATURES = 6
NUM_CLASSES = 3
NUM_TRAIN, NUM_HELD_OUT, BATCH_SIZE = 48, 32, 8
STEPS_PER_EPOCH = NUM_TRAIN // BATCH_SIZE
SITE = "net.0"
"""A site of every model here: its first layer."""
PLANT = ((1, SITE, "bottleneck_mlp"),)
"""A schedule: TRAINING in epoch 2, GRAFTING in 3, STABILIZATION in 4, EVALUATING in 5."""

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
}
MakeScheduler = Callable[[torch.optim.Optimizer], LRScheduler | dict[str, Any]]


class Classifier(pl.LightningModule):
    """The training that all models here share; `net`, `head` and `data` are the subclass's."""

    net: nn.Module
    head: nn.Module

    def __init__(self, optimizer: str = "adamw", scheduler: MakeScheduler | None = None):
        super().__init__()
        self.optimizer = optimizer
        self.scheduler = scheduler

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.net(inputs))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        inputs, labels = batch
        loss = functional.cross_entropy(self(inputs), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        inputs, labels = batch
        self.log("val_loss", functional.cross_entropy(self(inputs), labels))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        inputs, labels = batch
        self.log("test_loss", functional.cross_entropy(self(inputs), labels))

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self(batch[0])

    def configure_optimizers(self) -> Any:
        optimizer = OPTIMIZERS[self.optimizer](self.parameters())
        if self.scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.scheduler(optimizer)}

    @staticmethod
    def data(length: int, rng_seed: int) -> Dataset[Any]:
        return tabular(length, rng_seed)


class MLP(Classifier):
    """A two-layer network with dropout, some of it by a function that no module's mode reaches."""

    def __init__(self, optimizer: str = "adamw", scheduler: MakeScheduler | None = None):
        super().__init__(optimizer, scheduler)
        self.net = nn.Sequential(nn.Linear(NUM_FEATURES, 8), nn.ReLU(), nn.Dropout(0.25))
        self.head = nn.Linear(8, NUM_CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(functional.dropout(self.net(inputs), 0.1, self.training))


class ConvNet(Classifier):
    """A convolutional network with BatchNorm and dropout: buffers and random streams matter."""

    def __init__(self, optimizer: str = "adamw", scheduler: MakeScheduler | None = None):
        super().__init__(optimizer, scheduler)
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout2d(0.25),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.1),
        )
        self.head = nn.Linear(4, NUM_CLASSES)

    @staticmethod
    def data(length: int, rng_seed: int) -> Dataset[Any]:
        inputs, labels = tabular(length, rng_seed).tensors
        return TensorDataset(inputs.reshape(length, 1, 2, 3), labels)


class NoValidation(MLP):
    """A module without a validation loop."""

    validation_step = pl.LightningModule.validation_step


class ByHand(MLP):
    """Manual optimization, with a training step that returns nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        inputs, labels = batch
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(functional.cross_entropy(self(inputs), labels))
        self.clip_gradients(optimizer, gradient_clip_val=1.0)
        optimizer.step()


class TwoOptimizers(MLP):
    """Manual optimization with one optimizer for each layer, toggled and scheduled."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        inputs, labels = batch
        loss = torch.zeros(())
        for optimizer, scheduler in zip(self.optimizers(), self.lr_schedulers(), strict=True):
            self.toggle_optimizer(optimizer)
            loss = functional.cross_entropy(self(inputs), labels)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.untoggle_optimizer(optimizer)
            scheduler.step()
        return loss.detach()

    def configure_optimizers(self) -> Any:
        pair = [OPTIMIZERS["sgd"](part.parameters()) for part in (self.head, self.net)]
        return pair, [torch.optim.lr_scheduler.StepLR(o, 4, gamma=0.5) for o in pair]


def tabular(length: int, rng_seed: int) -> TensorDataset:
    """Points whose class is a smooth function of them, the same for every rng_seed."""
    stream = torch.Generator().manual_seed(rng_seed)
    inputs = torch.randn(length, NUM_FEATURES, generator=stream)
    scores = torch.stack([inputs[:, 0], inputs[:, 1] * inputs[:, 2], inputs[:, 3].sin()], dim=1)
    return TensorDataset(inputs, scores.argmax(dim=1))


def train_loader(model: Classifier, **options: Any) -> DataLoader[Any]:
    """Shuffled from the global stream: a generator of its own would hide a stolen draw."""
    options = {"batch_size": BATCH_SIZE, "shuffle": True, **options}
    return DataLoader(model.data(NUM_TRAIN, 1), **options)


def held_out_loader(model: Classifier) -> DataLoader[Any]:
    return DataLoader(model.data(NUM_HELD_OUT, 2), batch_size=BATCH_SIZE)


def seed_streams(rng_seed: int) -> None:
    """Seed every stream of the process; one thread, since bits depend on how sums are split."""
    torch.set_num_threads(1)
    random.seed(rng_seed)
    np.random.seed(rng_seed)
    torch.manual_seed(rng_seed)


def quiet_trainer(max_epochs: int = 3, **options: Any) -> pl.Trainer:
    quiet = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    return pl.Trainer(max_epochs=max_epochs, **{**quiet, **options})


def esper(run_dir: Path, **overrides: Any) -> EsperCallback:
    """A callback without a bus whose trials take a moment; it grows nothing unless told to."""
    quick = {
        "policy": "schedule" if "schedule" in overrides else "hold",
        "telemetry": "off",
        "trial_steps": (2, 4),
        "checkpoint": False,
        "run_dir": str(run_dir),
    }
    return EsperCallback(**{**quick, **overrides})


def listen(callback: EsperCallback) -> list[Event]:
    """Every event of the callback's runs, as they happen."""
    events: list[Event] = []
    callback.listeners.append(events.append)
    return events


def stages(callback: EsperCallback) -> dict[str, str]:
    """The stage of every seed now, by name."""
    assert callback.orchestrator is not None
    table = callback.orchestrator.executor.table
    return {name: table.stage(name).name for name in table.names}


def children() -> set[int]:
    """Processes that this one has started and that still live."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(pid) for task in tasks for pid in task.read_text().split()}


class Losses(pl.Callback):
    """Keeps the loss of every step, and the weights at the end of every epoch."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self.weights: list[dict[str, Tensor]] = []

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if outputs:
            self.losses.append(outputs["loss"].clone())

    def on_train_epoch_end(self, trainer: Any, pl_module: pl.LightningModule) -> None:
        self.weights.append(weights(pl_module))


class AtEpochEnd(pl.Callback):
    """Runs a check after the callbacks before it have ended the epoch."""

    def __init__(self, check: Callable[[pl.Trainer, Any], None]):
        self._check = check

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._check(trainer, pl_module)


def fit(
    model_class: Callable[[], Classifier] = MLP,
    callbacks: list[pl.Callback] | None = None,
    *,
    rng_seed: int = 3,
    loader_options: Mapping[str, Any] | None = None,
    ckpt_path: Path | None = None,
    **trainer_options: Any,
) -> tuple[pl.Trainer, Any]:
    """Seed, build, train: two calls with the same arguments are the same run, bit for bit.

    Returns:
        The trainer and the trained module.
    """
    seed_streams(rng_seed)
    model = model_class()
    given = list(callbacks or [])
    trainer_options.setdefault(
        "enable_checkpointing", any(isinstance(c, Checkpoint) for c in given)
    )
    trainer = quiet_trainer(callbacks=given, **trainer_options)
    held_out = held_out_loader(model) if type(model).__name__ != "NoValidation" else None
    loader = train_loader(model, **dict(loader_options or {}))
    trainer.fit(model, loader, held_out, ckpt_path=ckpt_path)
    return trainer, model


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the parameters and buffers, by name."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def assert_same_tensors(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert list(one) == list(other)
    differing = [name for name in one if not torch.equal(one[name], other[name])]
    assert not differing, differing


def optimizer_state(trainer: pl.Trainer, model: nn.Module) -> dict[str, Tensor]:
    """The state of every optimizer as copied tensors, by parameter name and key."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {
        f"{number}.{names[id(parameter)]}.{key}": torch.as_tensor(copy.deepcopy(value))
        for number, optimizer in enumerate(trainer.optimizers)
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if value is not None
    }
    return dict(sorted(found.items()))


def assert_same_run(one: tuple[pl.Trainer, nn.Module], other: tuple[pl.Trainer, nn.Module]) -> None:
    """The same weights, buffers and optimizer state, bit for bit, in the same groups."""
    assert_same_tensors(weights(one[1]), weights(other[1]))
    assert_same_tensors(optimizer_state(*one), optimizer_state(*other))
    for mine, theirs in zip(one[0].optimizers, other[0].optimizers, strict=True):
        sizes = [[len(group["params"]) for group in o.param_groups] for o in (mine, theirs)]
        assert sizes[0] == sizes[1]
