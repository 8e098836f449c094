"""Where settings come from: arguments, the environment, a file; which wins, and which it was."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from leyline import ConfigError
from tolaria.environment import NO_LIST, PREFIX, settings_in

ARGUMENT: Final = "argument"
DEFAULT: Final = "default"


class Stated(NamedTuple):
    """The settings that something states, and what that is; the defaults are not among them."""

    values: dict[str, Any]
    origins: dict[str, str]
    """By setting: "argument", the name of an environment variable, or of what holds the config."""


def gather(
    config: Any,
    overrides: Mapping[str, Any],
    environment: Mapping[str, str] | None,
    kind: type[msgspec.Struct],
    where: str,
) -> Stated:
    """Put together what is stated; an argument wins over a variable, and that over the config.

    Args:
        config: a TOML file (its `[esper]` table if it has one), a mapping, None, or a finished
            struct of the kind, which the environment does not change any more.
        overrides: the arguments.
        environment: where ESPER_<FIELD> is looked up; the process's own if None.
        kind: the struct whose fields are the settings.
        where: what holds the config, unless it is a file.

    Raises:
        ConfigError: an unknown name, a variable that does not fit, an unreadable file.
    """
    from_environment: dict[str, Any] = {}
    if isinstance(config, kind):
        values = msgspec.structs.asdict(config)
    else:
        from_environment = settings_in(environment, kind)
        values = {}
        if isinstance(config, Mapping):
            values = dict(config)
        elif isinstance(config, str | Path):
            where = str(config)
            values = _table(read_toml(Path(config)), where)
        elif config is not None:
            raise ConfigError(
                f"config is a {type(config).__name__}; give a TOML file's path, a mapping or an "
                f"{kind.__name__}"
            )
    check_names(values, where, kind)
    check_names(overrides, "the arguments", kind)
    origins = dict.fromkeys(values, where)
    origins |= {name: PREFIX + name.upper() for name in from_environment}
    origins |= dict.fromkeys(overrides, ARGUMENT)
    return Stated({**values, **from_environment, **overrides}, origins)


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


def check_names(values: Mapping[str, Any], where: str, kind: type[msgspec.Struct]) -> None:
    """Refuse a setting that there is not.

    Args:
        values: settings by name.
        where: what holds them, for the error.
        kind: the struct whose fields are the settings.

    Raises:
        ConfigError: an unknown name, with the one that was likely meant.
    """
    known = kind.__struct_fields__
    for name in values:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
            raise ConfigError(f"{where}: there is no setting {name!r}; {hint}")


def plain(value: Any) -> Any:
    """What users give where a plain value is meant, for msgspec to convert."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"a {type(value).__name__} is not a setting's value")


def field_first(message: str, settings: Mapping[str, Any]) -> str:
    """Turn msgspec's "Expected `int`, got `str` - at `$.rng_seed`" into our word order."""
    text, _, path = message.partition(" - at `$.")
    if not path:
        return text
    field = re.split(r"[.\[`]", path)[0]
    value = settings.get(field)
    cure = (
        f"; give a list: [{value!r}]"
        if path.rstrip("`") == field and text.startswith(NO_LIST)
        else ""
    )
    return f"setting {field!r} is {value!r}: {text}{cure}"


def _table(content: dict[str, Any], where: str) -> dict[str, Any]:
    """A file's [esper] table, or all of it where there is none."""
    table = content.get("esper", content)
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: esper is {table!r}; it must be a table, [esper]")
    return table
