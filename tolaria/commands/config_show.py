"""`esper config show`: what every setting is in the end, and where it comes from."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
from rich.table import Table
from rich.text import Text

from oona.servers.url import redact
from tolaria.commands.spec import TrainSpec, spec_of
from tolaria.config import EsperConfig, resolve
from tolaria.environment import warn_of_unknown
from tolaria.settings_sources import ARGUMENT, DEFAULT
from tolaria.show.output import Output


class Setting(NamedTuple):
    """One setting as a run would have it."""

    name: str
    value: Any
    """Plain, as JSON holds it."""
    origin: str
    """"argument", ESPER_<NAME>, a file's path or "default"."""


def show_config(
    target: str | None,
    given: Mapping[str, Any],
    overrides: Mapping[str, Any],
    *,
    as_json: bool,
) -> None:
    """Print the settings that `esper train` with the same arguments would have.

    Args:
        target, given, overrides: as `run_command` of `esper train` divides its arguments.

    Raises:
        ConfigError: as for `esper train`.
    """
    spec = spec_of(target, given)
    file = target if target is not None and spec.model != target else None
    warn_of_unknown(None, EsperConfig)
    settings = [*_of_spec(spec, given, file, target), *_of_growth(spec, overrides, file)]
    if as_json:
        content = {s.name: {"value": s.value, "from": s.origin} for s in settings}
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
        return
    Output().print(_table(settings))


def _of_spec(
    spec: TrainSpec, given: Mapping[str, Any], file: str | None, target: str | None
) -> Iterator[Setting]:
    """What is trained; these have no environment variables."""
    usual = TrainSpec()
    for name in (field for field in TrainSpec.__struct_fields__ if field != "esper"):
        value = getattr(spec, name)
        origin = DEFAULT
        if name in given or (name == "model" and target is not None and file is None):
            origin = ARGUMENT
        elif file is not None and value != getattr(usual, name):
            origin = file
        yield Setting(name, msgspec.to_builtins(value), origin)


def _of_growth(
    spec: TrainSpec, overrides: Mapping[str, Any], file: str | None
) -> Iterator[Setting]:
    config, origins = resolve(spec.esper, overrides, where=file or DEFAULT)
    for name, value in msgspec.to_builtins(config).items():
        shown = redact(value) if name == "telemetry" else value
        yield Setting(name, shown, origins.get(name, DEFAULT))


def _table(settings: list[Setting]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("setting", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("from", overflow="fold")
    for name, value, origin in settings:
        style = "dim" if origin == DEFAULT else ""
        shown = "-" if value is None else value if isinstance(value, str) else json.dumps(value)
        table.add_row(*(Text(cell, style) for cell in (name, shown, origin)))
    return table
