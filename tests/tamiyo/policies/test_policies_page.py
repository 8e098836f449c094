"""The page on policies: its options are those of the code, its example is a policy that works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kasmina.guard import contain
from leyline import Germinate
from tamiyo import State, policy_catalogue
from tamiyo.policies import ENTRY_POINT_GROUP, SHARED, PolicyCatalogue
from tests.installing import Packages
from tests.tamiyo.boundaries import state, tried

PAGE = (Path(__file__).parents[3] / "docs/policies.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if re.match(r"\| `\w+` \|", line)
]
OPTIONS = {row[0].strip("`"): row[1:3] for row in ROWS if len(row) == 4}
EXAMPLE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
NAMES = [row[0].strip("`") for row in ROWS if len(row) == 2]


def test_every_policy_is_on_the_page() -> None:
    """Every built-in one, and no other."""
    kinds = policy_catalogue.by_name.values()
    assert [kind.name for kind in kinds if kind.built_in] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_on_the_page_with_its_default(name: str) -> None:
    """What the page says of a policy's options is what the code has."""
    said = {option: default for option, (default, of) in OPTIONS.items() if name in of.split(", ")}
    known = policy_catalogue[name].options
    shown = {each: "none" if value is None else repr(value) for each, value in known.items()}
    assert said == shown


def test_settings_and_group_are_on_the_page() -> None:
    """The settings that are no options, and the entry point group."""
    assert all(f"`{name}`" in PAGE for name in SHARED)
    assert f'entry-points."{ENTRY_POINT_GROUP}"' in PAGE


def test_the_example_works(tmp_path: Path) -> None:
    """Installed as the page says, its class plants the smallest candidate first, once, and goes on
    when it is resumed.
    """
    packages = Packages(tmp_path, ENTRY_POINT_GROUP)
    packages.install("my-package", EXAMPLE, smallest_first=":SmallestFirst")
    catalogue = PolicyCatalogue(ENTRY_POINT_GROUP)
    catalogue.load_plug_ins(contain)
    packages.remove()
    kind = catalogue["smallest_first"]
    assert kind.options == {"veto_errors": 2.0, "every_epochs": 5}
    policy = kind.factory(kind.rules_of({"every_epochs": 2}, {"veto": False}))
    planted = []
    for epoch in range(1, 9):
        resumed = kind.factory(kind.rules_of({"every_epochs": 2}, {}))
        resumed.load_state_dict(policy.state_dict())
        policy = resumed
        at: State = state(epoch=epoch)
        commands = [c for c in policy.decide(at).commands if isinstance(c, Germinate)]
        planted += [(epoch, c.site, c.blueprint) for c in commands]
    norms = [(epoch, f"block{epoch // 2}", "norm") for epoch in (2, 4, 6)]
    assert planted == [*norms, (8, "block1", "low_rank")]
    assert policy.decide(state(tried("block1/0", -1.0), epoch=9)).commands
