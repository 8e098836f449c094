"""Options: the parameters of a grafting strategy, with their bounds, read from plain numbers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from leyline import ConfigError

Kind = TypeVar("Kind")


def option(default: float, *, low: float, high: float = math.inf) -> Any:
    """A field whose value lies between two bounds, both allowed if finite."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high})


def read_options(kind: type[Kind], values: Mapping[str, float], strategy: str) -> Kind:
    """Build a dataclass of options.

    Args:
        kind: the dataclass; its fields are made by `option` and are float or int.
        values: some of its fields by name.
        strategy: whose they are, for the error.

    Raises:
        ConfigError: an unknown name, a fraction where a count is meant, or out of bounds.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type] # every options class is a dataclass
    read: dict[str, float] = {}
    for name, value in values.items():
        if name not in fields:
            known = ", ".join(fields) or "none"
            raise ConfigError(
                f"grafting_options: {strategy!r} grafting has no option {name!r}; it takes {known}"
            )
        low, high = (fields[name].metadata[bound] for bound in ("low", "high"))
        counts = isinstance(fields[name].default, int)
        whole = not counts or float(value).is_integer()
        if not (math.isfinite(value) and low <= value <= high and whole):
            what = "a whole number" if counts else "a number"
            allowed = f"from {low:g} to {high:g}" if high < math.inf else f"of at least {low:g}"
            raise ConfigError(
                f"grafting_options: {name!r} of {strategy!r} grafting is {value!r}; "
                f"it must be {what} {allowed}"
            )
        read[name] = int(value) if counts else float(value)
    return kind(**read)
