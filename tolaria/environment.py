"""Settings in the environment: ESPER_<FIELD> for every field of the config."""

from __future__ import annotations

import difflib
import logging
import os
import tomllib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from leyline import ConfigError
from oona.variables import VARIABLES

PREFIX: Final = "ESPER_"
NO_LIST: Final = "Expected `array`"
"""How msgspec begins to say that a list was meant."""
_LOG = logging.getLogger("esper")


def settings_in(
    environment: Mapping[str, str] | None, config: type[msgspec.Struct]
) -> dict[str, Any]:
    """The settings that variables state, by field.

    Args:
        environment: the variables; those of the process if None.
        config: the struct whose fields are the settings.

    Raises:
        ConfigError: a variable does not fit its field.
    """
    source = os.environ if environment is None else environment
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(config):
        name = PREFIX + field.name.upper()
        text = source.get(name)
        if text is None:
            continue
        try:
            found[field.name] = _converted(text, field.type)
        except msgspec.ValidationError as error:
            cure = f'; give a list: ["{text}"]' if str(error).startswith(NO_LIST) else ""
            raise ConfigError(f"environment variable {name} is {text!r}: {error}{cure}") from error
    return found


def warn_of_unknown(environment: Mapping[str, str] | None, config: type[msgspec.Struct]) -> None:
    """Name in the log the variables that look like settings and are none.

    They are no error, because another program may use the prefix too.
    """
    source = os.environ if environment is None else environment
    known = [PREFIX + field.name.upper() for field in msgspec.structs.fields(config)]
    known += VARIABLES
    for name in sorted(source):
        if name.startswith(PREFIX) and name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
            hint = f"; did you mean {close[0]}?" if close else ""
            _LOG.warning("environment variable %s is no setting and changes nothing%s", name, hint)


def _converted(text: str, kind: Any) -> Any:
    """A variable's value: a TOML value where it reads and fits as one, else the text itself."""
    try:
        return msgspec.convert(tomllib.loads(f"value = {text}")["value"], kind, strict=False)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError):
        return msgspec.convert(text, kind, strict=False)
