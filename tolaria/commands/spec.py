"""What `esper train` was asked to train, as a config file and the command line state it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from leyline import ConfigError
from tolaria.config import EsperConfig, load_config
from tolaria.settings_sources import check_names, read_toml

DEFAULT_SET: Final = "digits"
_SMALL_SETS: Final = ("digits", "mnist1d")


class TrainSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One training run, as a config file states it and the run directory keeps it."""

    model: str | None = None
    """package.module:LightningModule; None: the host that belongs to built-in data."""
    data: str | None = None
    """A built-in set, or package.module:LightningDataModule; None: the digits."""
    data_dir: str | None = None
    """Where a built-in set that is not shipped lies."""
    epochs: int | None = None
    """Epochs to train; None: what the built-in task is meant for, or 30."""
    threads: int | None = None
    """Threads torch may use; None: one for the small built-in sets, else torch's own choice."""
    model_args: dict[str, Any] = {}
    """Keyword arguments of the model's class."""
    data_args: dict[str, Any] = {}
    """Keyword arguments of the data module's class, or of a built-in task."""
    trainer: dict[str, Any] = {}
    """Keyword arguments of lightning's Trainer."""
    esper: dict[str, Any] = {}
    """Settings of EsperConfig."""

    def num_threads(self) -> int | None:
        """Threads to set; None leaves torch's choice.

        Every small tensor waits for a barrier per thread: on contended cores two threads were ten
        times slower than one on the small sets.
        """
        small = self.model is None and (self.data or DEFAULT_SET) in _SMALL_SETS
        return self.threads or (1 if small else None)

    def config(self, overrides: Mapping[str, Any] | None = None) -> EsperConfig:
        """The resolved growth settings."""
        return load_config(self.esper, overrides)


def read_spec(path: Path) -> TrainSpec:
    """Read a spec from a TOML file.

    Raises:
        ConfigError: missing, not TOML, an unknown key or a wrong type.
    """
    content = read_toml(path)
    known = TrainSpec.__struct_fields__
    for name in content:
        if name in EsperConfig.__struct_fields__:
            raise ConfigError(
                f"{path}: {name} is a setting of growth; write it under [esper], below all keys of "
                "the top level"
            )
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}? Known are" if close else "known are"
            raise ConfigError(f"{path}: there is no key {name!r}; {hint} {', '.join(known)}")
    try:
        spec = msgspec.convert(content, TrainSpec)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}") from error
    check_names(spec.esper, f"{path}, [esper]", EsperConfig)
    return spec


def spec_of(target: str | None, given: Mapping[str, Any]) -> TrainSpec:
    """The spec that a command line asks for.

    Args:
        target: a config file, package.module:Model, or None for the built-in host.
        given: the options that were stated; they win over the file.

    Raises:
        ConfigError: the target is neither, or as for `read_spec`.
    """
    if target is None or ":" in target:
        spec = TrainSpec(model=target)
    elif target.endswith(".toml") or Path(target).exists():
        spec = read_spec(Path(target))
    else:
        raise ConfigError(
            f"{target!r} is neither a config file (CONFIG.toml) nor a model "
            "(package.module:MyLightningModule)"
        )
    return msgspec.structs.replace(spec, **given)


def divided(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options that were stated: those of the spec, and those that are settings of growth."""
    stated = {name: value for name, value in options.items() if value is not None}
    given = {n: v for n, v in stated.items() if n in TrainSpec.__struct_fields__}
    return given, {n: v for n, v in stated.items() if n not in given}
