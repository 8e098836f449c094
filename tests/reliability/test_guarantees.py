"""The documents that name tests name tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
NAMED: Final = re.compile(r"`(\S+\.py)::(\w+)`")


@pytest.mark.parametrize(
    ("document", "least"), [("docs/guarantees.md", 30), ("tests/reliability/TRACK_RECORD.md", 12)]
)
def test_a_named_test_is_there(document: str, least: int) -> None:
    """Renamed or removed tests are found here, so no claim stands without one."""
    named = NAMED.findall((ROOT / document).read_text(encoding="utf-8"))
    assert len(named) >= least
    for file, name in named:
        source = (ROOT / "tests" / file).read_text(encoding="utf-8")
        there = {n.name for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)}
        assert name in there, f"{document} names {file}::{name}, which is not there"


def test_every_row_of_the_guarantees_names_a_test() -> None:
    """No guarantee is stated without the test that holds it."""
    rows = re.findall(
        r"^\| (?!guarantee|---)(.*) \|$", (ROOT / "docs/guarantees.md").read_text(), re.M
    )
    assert len(rows) >= 25
    for row in rows:
        assert NAMED.search(row), row
