"""A kind of policy: its name, how it is built, and the rules that a config may set."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Final

import msgspec

from leyline import ConfigError, PolicyError
from tamiyo.policy import Policy

SHARED: Final = (
    "veto",
    "embargo_epochs",
    "max_candidates",
    "schedule",
    "rng_seed",
    "monitor",
    "monitor_mode",
)
"""Settings of the run: a field of the rules that has such a name is filled from it, and is no
option. Of `monitor_mode` the rules get "min" or "max", or "auto" where nobody can tell."""


@dataclass(frozen=True)
class NoRules:
    """The rules of a policy that has no options."""


@dataclass(frozen=True)
class PolicyKind:
    """A policy that a config can ask for by name.

    Args:
        name: an identifier.
        factory: called with an instance of `rules`; returns the policy of one run.
        rules: a frozen dataclass whose fields all have defaults; the fields that are no setting of
            the run (`SHARED`) are the options. Ranges are `Annotated[int, msgspec.Meta(ge=1)]`.
        built_in: whether it came with Esper.

    Raises:
        PolicyError: one of these is not so.
    """

    name: str
    factory: Callable[[Any], Policy]
    rules: type[Any] = NoRules
    built_in: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier():
            raise PolicyError(f"policy name {self.name!r} is not an identifier; choose another")
        if not callable(self.factory):
            raise PolicyError(f"policy {self.name!r} has {self.factory!r} for a factory; give one")
        if not is_dataclass(self.rules) or not isinstance(self.rules, type):
            raise PolicyError(
                f"policy {self.name!r} has {self.rules!r} for its rules; give a frozen dataclass"
            )
        if not self.rules.__dataclass_params__.frozen:  # type: ignore[attr-defined] # every dataclass has them
            raise PolicyError(
                f"the rules of policy {self.name!r} can be changed; make their dataclass frozen"
            )
        unset = [
            field.name
            for field in fields(self.rules)
            if field.init and field.default is MISSING and field.default_factory is MISSING
        ]
        if unset:
            raise PolicyError(
                f"the rules of policy {self.name!r} need {', '.join(unset)}; give each a default"
            )
        try:
            msgspec.convert({}, self.rules)
        except (TypeError, NameError, ValueError) as error:
            raise PolicyError(
                f"the rules of policy {self.name!r} cannot be read from a config: {error}; use "
                "numbers, text, booleans, and tuples of these"
            ) from error

    @property
    def options(self) -> dict[str, Any]:
        """Its options by name, with their defaults."""
        plain = self.rules()
        names = [field.name for field in fields(self.rules) if field.init]
        return {name: getattr(plain, name) for name in names if name not in SHARED}

    def rules_of(self, options: Mapping[str, Any], shared: Mapping[str, Any]) -> Any:
        """The rules that options and settings make.

        Args:
            options: values by name of option, as a config holds them.
            shared: values by name of setting; those that it has no field for are left out.

        Raises:
            ConfigError: an unknown option, or a value of a wrong type or out of range.
        """
        known = self.options
        for name, value in options.items():
            if name not in known:
                raise ConfigError(_unknown(self.name, name, known))
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(
                    f"policy_options: {name!r} of policy {self.name!r} is {value!r}; "
                    "it must be finite"
                )
        wanted = {field.name for field in fields(self.rules) if field.init}
        values = {name: value for name, value in shared.items() if name in wanted}
        try:
            return msgspec.convert({**values, **options}, self.rules)
        except msgspec.ValidationError as error:
            text, _, path = str(error).partition(" - at `$.")
            name = path.rstrip("`").partition("[")[0]
            value = options.get(name, values.get(name))
            which = f"{name!r} of policy {self.name!r} is {value!r}" if name else self.name
            raise ConfigError(f"policy_options: {which}: {text}") from error


def _unknown(policy: str, name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {close[0]!r}? Its" if close else "; its"
    if name in SHARED:
        hint = " but a setting of its own, beside policy_options; the policy's"
    listed = ", ".join(f"{option} ({value!r})" for option, value in known.items()) or "none"
    said = f"policy_options: {name!r} is no option of policy {policy!r}{hint}"
    return f"{said} options, with their defaults, are {listed}"
