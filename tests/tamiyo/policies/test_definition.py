"""Kinds of policies: what their rules must be, and how options become rules."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from msgspec import Meta

from leyline import ConfigError, PolicyError
from tamiyo import HeuristicRules, HoldPolicy, PolicyKind, SettlingRules, policy_catalogue
from tamiyo.policies import SHARED


@dataclass(frozen=True)
class Rules(SettlingRules):
    """As a plug-in would have them."""

    pace: Annotated[int, Meta(ge=2)] = 5
    kinds: tuple[str, ...] = ()
    share: float = 0.5


KIND = PolicyKind("mine", lambda rules: HoldPolicy(), Rules)


def test_options_and_settings_make_the_rules() -> None:
    """An option wins over its default, a setting of the run over its own, a list is a tuple, an
    integer a float; settings that the rules do not name are left out.
    """
    shared = {"embargo_epochs": 4, "rng_seed": 3}
    rules = KIND.rules_of({"pace": 9, "kinds": ["a"], "share": 1}, shared)
    assert rules == Rules(pace=9, kinds=("a",), share=1.0, embargo_epochs=4)
    assert KIND.rules_of({}, {}) == Rules()


def test_settings_are_no_options() -> None:
    """What the run has a setting for is no option of any policy."""
    assert KIND.options == {"veto_errors": 2.0, "pace": 5, "kinds": (), "share": 0.5}
    for kind in policy_catalogue.by_name.values():
        assert not set(kind.options) & set(SHARED)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pase": 9}, r"'pase' is no option of policy 'mine'; did you mean 'pace'\? Its options"),
        ({"zzz": 9}, r"veto_errors \(2.0\), pace \(5\), kinds \(\(\)\), share \(0.5\)"),
        ({"veto": True}, "a setting of its own, beside policy_options"),
        ({"pace": 1}, "'pace' of policy 'mine' is 1: Expected `int` >= 2"),
        ({"pace": "9"}, "'pace' of policy 'mine' is '9': Expected `int`, got `str`"),
        ({"kinds": ["a", 3]}, r"'kinds' of policy 'mine' is \['a', 3\]: Expected `str`"),
        ({"share": float("nan")}, "is nan; it must be finite"),
        ({"share": float("inf")}, "is inf; it must be finite"),
        ({"share": None}, "Expected `float`, got `null`"),
    ],
)
def test_a_wrong_option_is_refused_in_words(options: dict[str, Any], said: str) -> None:
    """The error has the option, what it was and what is allowed."""
    with pytest.raises(ConfigError, match="policy_options") as refused:
        KIND.rules_of(options, {})
    assert refused.match(said)


@pytest.mark.parametrize("field", dataclasses.fields(HeuristicRules), ids=lambda field: field.name)
def test_the_heuristics_own_ranges(field: dataclasses.Field[Any]) -> None:
    """No number of the heuristic's may be negative, whatever it is; text is refused for numbers."""
    kind = policy_catalogue["heuristic"]
    if field.name in SHARED:
        return
    wrong = 3 if field.name == "train_monitor" else -1
    with pytest.raises(ConfigError, match=field.name):
        kind.rules_of({field.name: wrong}, {})


@dataclass
class Loose:
    """Rules that can be changed."""

    pace: int = 1


@dataclass(frozen=True)
class Bare:
    """Rules without a default."""

    pace: int


@dataclass(frozen=True)
class Strange:
    """Rules that no config can state."""

    where: complex = 1j
    nowhere: "Missing" = None  # type: ignore[name-defined] # noqa: F821, UP037 - the case


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "not a name"}, "'not a name' is not an identifier"),
        ({"name": 3}, "3 is not an identifier"),
        ({"factory": 3}, "has 3 for a factory"),
        ({"rules": int}, "give a frozen dataclass"),
        ({"rules": Rules()}, "give a frozen dataclass"),
        ({"rules": Loose}, "make their dataclass frozen"),
        ({"rules": Bare}, "need pace; give each a default"),
        ({"rules": Strange}, "cannot be read from a config"),
    ],
)
def test_what_is_no_kind_is_refused_in_words(fields: dict[str, Any], said: str) -> None:
    """The error has the policy and what is wrong."""
    given: dict[str, Any] = {"name": "mine", "factory": HoldPolicy, "rules": Rules}
    with pytest.raises(PolicyError, match=said):
        PolicyKind(**{**given, **fields})
