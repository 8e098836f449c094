"""Building what a spec asks for: the built-in tasks, and the user's own classes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from kasmina import isolated_rng
from leyline import ConfigError, EsperError
from tolaria import data as built_in
from tolaria.commands.spec import DEFAULT_SET, TrainSpec


def build(
    spec: TrainSpec, rng_seed: int, epochs: int | None = None
) -> tuple[pl.LightningModule, pl.LightningDataModule, int]:
    """Build the model and its data afresh.

    Args:
        spec: what to build.
        rng_seed: what the model's weights and the data order are drawn from.
        epochs: replaces the spec's number of epochs.

    Returns:
        Model, data module and the number of epochs to train.

    Raises:
        ConfigError: something in the spec does not exist or cannot be built.
    """
    wanted = epochs or spec.epochs
    if wanted is not None and wanted < 1:
        raise ConfigError(f"epochs is {wanted}; it must be at least 1")
    if spec.data is None and spec.model is not None:
        raise ConfigError(
            f"model is {spec.model}, but no data was given; give --data "
            f"package.module:MyDataModule, or one of {', '.join(built_in.RECIPES)}"
        )
    data = spec.data or DEFAULT_SET
    if ":" not in data:
        data_dir = None if spec.data_dir is None else Path(spec.data_dir)
        task = built_in.load(
            data, data_dir=data_dir, rng_seed=rng_seed, num_epochs=wanted, **spec.data_args
        )
        if spec.model is None:
            return task.module, task.data, task.num_epochs
        return _construct_model(spec, rng_seed), task.data, task.num_epochs
    if spec.model is None:
        raise ConfigError(
            f"data is {data}, but no model was given; give one as package.module:MyLightningModule"
        )
    module = _construct_model(spec, rng_seed)
    loaded = _construct(data, spec.data_args, pl.LightningDataModule, rng_seed)
    return module, loaded, wanted or 30


def _construct_model(spec: TrainSpec, rng_seed: int) -> pl.LightningModule:
    assert spec.model is not None
    module = _construct(spec.model, spec.model_args, pl.LightningModule, rng_seed)
    assert isinstance(module, pl.LightningModule)
    return module


def _construct(path: str, arguments: Mapping[str, Any], kind: type[Any], rng_seed: int) -> Any:
    target = import_object(path)
    if not (isinstance(target, type) and issubclass(target, kind)):
        raise ConfigError(f"{path} is not a {kind.__name__}; give package.module:{kind.__name__}")
    try:
        with isolated_rng(rng_seed):
            return target(**arguments)
    except EsperError:
        raise
    except TypeError as error:
        raise ConfigError(
            f"{path} cannot be built from {dict(arguments)}: {error}; "
            "give its arguments in a config file"
        ) from error


def import_object(path: str) -> Any:
    """Import `package.module:Name`, the current directory included.

    Raises:
        ConfigError: the path is malformed, or the module or the name does not exist.
    """
    module_name, separator, name = path.partition(":")
    parts = [*module_name.split("."), name]
    if not separator or not all(part.isidentifier() for part in parts):
        raise ConfigError(f"{path!r} is not of the form package.module:Name")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{path}: there is no module {error.name!r} on the path or in {here}; "
            "check the spelling and the directory you run from"
        ) from error
    try:
        return getattr(module, name)
    except AttributeError:
        named = [n for n, v in vars(module).items() if isinstance(v, type)]
        raise ConfigError(
            f"{path}: module {module_name!r} has no {name!r}; "
            f"its classes are {', '.join(named) or 'none'}"
        ) from None
