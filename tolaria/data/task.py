"""What `esper train NAME` trains: a network, its data and how long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import lightning as L
import torch
from torch import nn

from leyline import ConfigError
from tolaria.data import hosts, splits
from tolaria.data.classifier import Classifier
from tolaria.data.datamodule import ArrayDataModule


@dataclass(frozen=True, eq=False)
class Task:
    """A model and its data, ready for a Trainer of `num_epochs` epochs."""

    name: str
    module: L.LightningModule
    data: L.LightningDataModule
    num_epochs: int


@dataclass(frozen=True)
class Recipe:
    """How a built-in task is made, with the epochs, batch size and learning rate that suit it."""

    splits: Callable[[Path | None], splits.Splits]
    host: Callable[[], nn.Module]
    num_epochs: int
    batch_size: int
    learning_rate: float


RECIPES = MappingProxyType(
    {
        "digits": Recipe(lambda _: splits.digits(), hosts.digits_host, 30, 32, 3e-3),
        "mnist1d": Recipe(lambda _: splits.mnist1d(), hosts.mnist1d_host, 30, 64, 1e-2),
        "fashion-mnist": Recipe(splits.fashion, hosts.fashion_host, 10, 128, 3e-3),
    }
)


def load(
    name: str,
    *,
    data_dir: Path | None = None,
    rng_seed: int = 0,
    num_epochs: int | None = None,
    shuffle_labels: bool = False,
) -> Task:
    """Make a built-in task; the same arguments make the same weights and the same batches.

    Only "fashion-mnist" reads `data_dir`. Without `num_epochs` the task's own number is taken.
    The global random-number generators are left as they were.

    Raises:
        ConfigError: No task has that name, a number is out of range, or a file is missing.
    """
    recipe = RECIPES.get(name)
    if recipe is None:
        raise ConfigError(
            f"no built-in task is called {name!r}; there are {', '.join(RECIPES)}; "
            "a LightningModule of your own is given as package.module:Class"
        )
    num_epochs = recipe.num_epochs if num_epochs is None else num_epochs
    for setting, value, least in (("rng_seed", rng_seed, 0), ("num_epochs", num_epochs, 1)):
        if value < least:
            raise ConfigError(f"{setting} is {value}; it must be {least} or more")
    data = ArrayDataModule(
        recipe.splits(data_dir),
        batch_size=recipe.batch_size,
        rng_seed=rng_seed,
        shuffle_labels=shuffle_labels,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(rng_seed)  # torch.manual_seed would reseed CUDA too
        net = recipe.host()
    module = Classifier(net, learning_rate=recipe.learning_rate, num_epochs=num_epochs)
    return Task(name, module, data, num_epochs)
