"""Settings: one frozen struct, validated once; argument > environment > file > default."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from leyline import ConfigError

ENVIRONMENT_PREFIX: Final = "ESPER_"
POLICIES: Final = ("heuristic", "schedule", "hold")


class EsperConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting of a run, with the default that suits most."""

    monitor: str = "val_loss"
    """The metric that reports speak of."""
    policy: str = "heuristic"
    """"heuristic" grows by races of trials, "schedule" as `schedule` says, "hold" never."""
    schedule: tuple[tuple[int, str, str], ...] = ()
    """(epoch, site name, blueprint name): plant at the boundary that ends that 1-based epoch."""
    veto: bool = True
    """Whether the counterfactual may cull a grafted seed."""
    sites: str | tuple[str, ...] = "auto"
    """"auto", or glob patterns on site names."""
    param_budget: int | None = None
    """Parameters growth may add in all; None: as many as the host has, and at least 16,384."""
    telemetry: str = "embedded"
    """"embedded", "memory", "off", or a redis://, rediss:// or unix:// URL."""
    run_dir: str | None = None
    """The run's directory; None: a fresh dated one under runs/."""
    rng_seed: int = 0
    """Seeds everything that growth draws; the run's own random streams are left alone."""
    num_epochs: int | None = None
    """Epochs the run will have; Lightning's max_epochs where None."""
    ramp_epochs: int = 1
    """Epochs in which alpha goes from 0 to 1."""
    trial_steps: tuple[int, ...] = (50, 200)
    """Steps a candidate is trained for in all, at the end of each rung of a race."""
    trial_keep: int = 4
    """Candidates that go on to the next rung."""
    max_candidates: int = 32
    """Candidates in one race."""
    trial_learning_rate: float | None = None
    """Learning rate of trials; None: that of the host's group where it is an Adam, else 3e-3."""
    embargo_epochs: int = 15
    """Epochs for which the place and blueprint of a culled seed stay empty."""
    seed_learning_rate_factor: float = 1.0
    """Learning rate of a grafted seed, as a multiple of its host group's."""
    max_kept_batches: int = 64
    """Training and held-out batches kept for trials, each."""
    max_kept_size_bytes: int = 256 * 1024 * 1024
    """Size of the batches kept for trials, for training and held-out ones each."""
    checkpoint: bool = True
    """Whether a checkpoint is committed after every boundary."""
    keep_checkpoints: int = 2
    """Checkpoints kept; older ones are removed."""

    def __post_init__(self) -> None:
        """Check what types alone cannot say."""
        _require(self.policy in POLICIES, "policy", self.policy, f"one of {', '.join(POLICIES)}")
        _require(
            not (self.schedule and self.policy != "schedule"),
            "schedule",
            self.schedule,
            "given together with policy='schedule'",
        )
        for field in ("ramp_epochs", "trial_keep", "max_candidates", "keep_checkpoints"):
            _require(getattr(self, field) >= 1, field, getattr(self, field), "at least 1")
        _require(self.embargo_epochs >= 0, "embargo_epochs", self.embargo_epochs, "0 or more")
        _require(
            self.param_budget is None or self.param_budget >= 0,
            "param_budget",
            self.param_budget,
            "0 or more, or absent",
        )
        steps = self.trial_steps
        _require(
            bool(steps) and all(s >= 1 for s in steps) and list(steps) == sorted(set(steps)),
            "trial_steps",
            steps,
            "rising step counts, such as [50, 200]",
        )
        _require(
            all(epoch >= 1 for epoch, _, _ in self.schedule),
            "schedule",
            self.schedule,
            "entries whose epoch is 1 or later",
        )


def _require(condition: bool, field: str, value: object, allowed: str) -> None:
    if not condition:
        raise ConfigError(f"setting {field!r} is {value!r}; it must be {allowed}")


def load_config(
    config: str | Path | Mapping[str, Any] | EsperConfig | None = None,
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> EsperConfig:
    """Resolve settings: overrides, then ESPER_* variables, then the config, then defaults.

    Args:
        config: a TOML file (its `[esper]` table if it has one), a mapping, or a finished config.
        overrides: single fields; they win.
        environment: where ESPER_<FIELD> is looked up; the process's own if None.

    Raises:
        ConfigError: an unknown key, a wrong type or value, an unreadable file.
    """
    values: dict[str, Any] = {}
    where = "the config"
    if isinstance(config, EsperConfig):
        values = msgspec.structs.asdict(config)
    elif isinstance(config, Mapping):
        values = dict(config)
    elif config is not None:
        where = str(config)
        content = read_toml(Path(config))
        values = dict(content.get("esper", content))
    _check_names(values, where)
    _check_names(overrides or {}, "the arguments")
    settings = {**values, **_from_environment(environment), **dict(overrides or {})}
    try:
        return msgspec.convert(msgspec.to_builtins(settings), EsperConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {_field_first(str(error))}") from error
    except TypeError as error:
        raise ConfigError(f"{where}: {error}; give plain values") from error


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: missing, unreadable or not TOML.
    """
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"config file {path} does not exist; check the path") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"config file {path} cannot be read as TOML: {error}") from error


def _from_environment(environment: Mapping[str, str] | None) -> dict[str, Any]:
    source = os.environ if environment is None else environment
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(EsperConfig):
        text = source.get(ENVIRONMENT_PREFIX + field.name.upper())
        if text is None:
            continue
        try:
            found[field.name] = msgspec.convert(_parsed(text), field.type, strict=False)
        except msgspec.ValidationError as error:
            name = ENVIRONMENT_PREFIX + field.name.upper()
            raise ConfigError(f"environment variable {name} is {text!r}: {error}") from error
    return found


def _parsed(text: str) -> Any:
    """A variable's value: a TOML value where it reads as one, else the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _check_names(values: Mapping[str, Any], where: str) -> None:
    known = [field.name for field in msgspec.structs.fields(EsperConfig)]
    for name in values:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
            raise ConfigError(f"{where}: there is no setting {name!r}; {hint}")


def _field_first(message: str) -> str:
    """Turn msgspec's "Expected `int`, got `str` - at `$.rng_seed`" into our word order."""
    text, _, path = message.partition(" - at `$.")
    return f"setting {path.rstrip('`')!r}: {text}" if path else text
