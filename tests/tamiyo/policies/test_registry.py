"""The catalogue: policies by name, those of installed packages found by entry point."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kasmina.guard import contain
from leyline import ConfigError, PolicyError
from tamiyo import HoldPolicy, PolicyKind, register_policy
from tamiyo.policies import ENTRY_POINT_GROUP, PolicyCatalogue
from tamiyo.policies.built_in import BUILT_IN
from tests.installing import Packages

GOOD = """
from dataclasses import dataclass
from tamiyo import HoldPolicy, PolicyKind

@dataclass(frozen=True)
class Rules:
    pace: int = 5

class Patient(HoldPolicy):
    Rules = Rules
    def __init__(self, rules):
        self.rules = rules

def plain(rules):
    return HoldPolicy()

kind = PolicyKind("by_kind", plain, Rules)
number = 5
"""


@pytest.fixture
def packages(tmp_path: Path) -> Iterator[Packages]:
    installed = Packages(tmp_path, ENTRY_POINT_GROUP)
    yield installed
    installed.remove()


def fresh(*, loaded: bool = True) -> PolicyCatalogue:
    catalogue = PolicyCatalogue(ENTRY_POINT_GROUP)
    for kind in BUILT_IN:
        catalogue.register(kind)
    if loaded:
        catalogue.load_plug_ins(contain)
    return catalogue


def test_a_class_a_function_and_a_kind(packages: Packages) -> None:
    """A class brings its Rules, a function has no options, a PolicyKind comes as it is."""
    packages.install("good", GOOD, patient=":Patient", plain=":plain", whatever=":kind")
    catalogue = fresh()
    assert list(catalogue.by_name)[-3:] == ["patient", "plain", "by_kind"]
    assert catalogue["patient"].options == {"pace": 5}
    assert catalogue["plain"].options == {}
    rules = catalogue["patient"].rules_of({"pace": 7}, {})
    assert catalogue["patient"].factory(rules).rules.pace == 7  # type: ignore[attr-defined] # the plug-in's
    assert not catalogue["by_kind"].built_in


def test_a_module_that_registers_its_own(packages: Packages) -> None:
    """An entry point may name a module; what that registers is what counts."""
    packages.install("good", "from tests.tamiyo.policies.test_registry import *\nadd()", whole="")
    catalogue = _HELD["catalogue"] = fresh(loaded=False)
    catalogue.load_plug_ins(contain)
    assert list(catalogue.by_name)[len(BUILT_IN) :] == ["added"]


_HELD: dict[str, PolicyCatalogue] = {}


def add() -> None:
    _HELD["catalogue"].register(PolicyKind("added", lambda _: HoldPolicy()))


def test_nothing_is_imported_before_it_is_asked_for(packages: Packages) -> None:
    """A catalogue is made without a plug-in, which is then imported once."""
    packages.install("good", GOOD, patient=":Patient")
    catalogue = fresh(loaded=False)
    assert catalogue["heuristic"].built_in
    assert "patient" not in catalogue
    assert "good" not in sys.modules
    catalogue.load_plug_ins(contain)
    assert "patient" in catalogue
    assert sys.modules.pop("good")
    catalogue.load_plug_ins(contain)
    assert "good" not in sys.modules


ODD = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Rules:
    def __post_init__(self):
        raise RuntimeError("odd")

class Odd:
    Rules = Rules
"""
BROKEN: list[tuple[str, str, str]] = [
    ("import nothing_of_the_kind", ":plain", "ModuleNotFoundError: No module named"),
    (GOOD, ":missing", "AttributeError"),
    (GOOD, ":number", "is a int, not a factory"),
    ("raise RuntimeError('no GPU')", ":plain", "RuntimeError: no GPU"),
    (ODD, ":Odd", "RuntimeError: odd"),
    ("class Bad:\n    Rules = 3", ":Bad", "has 3 for its rules"),
    ("from tamiyo import PolicyKind\nk = PolicyKind('a b', print)", ":k", "not an identifier"),
]


@pytest.mark.parametrize(("source", "value", "reason"), BROKEN)
def test_a_broken_plug_in_is_left_out_by_name(
    packages: Packages, caplog: pytest.LogCaptureFixture, source: str, value: str, reason: str
) -> None:
    """Log and errors name entry point, package and cause, also when another is asked for; the rest
    works.
    """
    packages.install("bad", source, broken=value)
    packages.install("good", GOOD, patient=":Patient")
    with caplog.at_level(logging.WARNING, "esper"):
        catalogue = fresh()
    assert {"patient", "heuristic"} <= set(catalogue.by_name)
    (message,) = [record.getMessage() for record in caplog.records]
    for part in ("entry point 'broken'", "package 'bad'", reason):
        assert part in message
    with pytest.raises(ConfigError, match=r"'broken' is not to be had.*'bad'"):
        catalogue["broken"]
    with pytest.raises(ConfigError, match=r"'else'.*heuristic, schedule, random, hold, pat.*'bad'"):
        catalogue["else"]


def test_a_taken_name_stays_with_its_owner(
    packages: Packages, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a built-in policy nor one registered by hand is replaced by a plug-in."""
    packages.install("bad", GOOD, hold=":plain", mine=":plain")
    catalogue = fresh(loaded=False)
    mine = PolicyKind("mine", lambda _: HoldPolicy())
    catalogue.register(mine)
    with caplog.at_level(logging.WARNING, "esper"):
        catalogue.load_plug_ins(contain)
    assert catalogue["mine"] is mine
    assert catalogue["hold"].built_in
    assert sum("is taken" in record.getMessage() for record in caplog.records) == 2


@pytest.mark.parametrize("name", [kind.name for kind in BUILT_IN])
def test_a_built_in_policy_is_not_replaced(name: str) -> None:
    """Registering over one is refused, with what to do."""
    with pytest.raises(PolicyError, match=f"'{name}' is built in .* under another name"):
        register_policy(name, lambda rules: HoldPolicy())


def test_an_unknown_name_lists_what_there_is() -> None:
    """With the one that was likely meant."""
    for name, hint in (("heuristics", "did you mean 'heuristic'"), ("zzz", "it must be one of")):
        with pytest.raises(ConfigError, match="heuristic, schedule, random, hold") as refused:
            fresh()[name]
        assert refused.match(hint)


def test_every_built_in_policy_follows_the_protocol() -> None:
    """Each is built from its plain rules, has its own name, and saves a state that it can load."""
    for kind in BUILT_IN:
        policy: Any = kind.factory(kind.rules())
        assert policy.name == kind.name
        policy.load_state_dict(policy.state_dict())
