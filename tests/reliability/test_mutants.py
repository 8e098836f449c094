"""The suite is tested too: bugs are planted in copies of the checkout, and a named test finds each.

Five bugs, drawn by `--fault-seed`, in the slow tier; all of them with `make mutants`, which is
`--all-mutants`; one of them with `--all-mutants -k NAME`. A new bug is a patch in mutants/, whose
first line says what it is, and a row of mutant_table.py.
"""

from __future__ import annotations

import ast
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.reliability.mutant import (
    PATCHES,
    ROOT,
    Ended,
    StalePatchError,
    copy_checkout,
    headline,
    patched,
    run_test,
)
from tests.reliability.mutant_table import MUTANTS

NUM_DRAWN: Final = 5


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Draw the bugs; every process of a session draws the same."""
    if "mutant" not in metafunc.fixturenames:
        return
    names = list(MUTANTS)
    if not metafunc.config.getoption("all_mutants"):
        drawn = random.Random(f"{metafunc.config.getoption('fault_seed')}/mutants")  # noqa: S311
        names = sorted(drawn.sample(names, NUM_DRAWN))
    metafunc.parametrize("mutant", names)


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """A copy of the checkout, which does not stay."""
    place = tmp_path / "checkout"
    copy_checkout(place)
    yield place
    shutil.rmtree(place)


@pytest.mark.slow
@pytest.mark.planted
def test_a_planted_bug_is_found(mutant: str, checkout: Path) -> None:
    """The named test passes in a copy of the checkout, and fails once the bug is planted there."""
    patch, test = PATCHES / f"{mutant}.patch", MUTANTS[mutant]
    ended = run_test(test, checkout)
    assert ended.has_passed, f"{test} does not pass without the bug:\n{ended.output}"
    for name, text in patched(patch).items():
        (checkout / name).write_text(text, encoding="utf-8")
    ended = run_test(test, checkout)
    assert ended.has_failed, (
        f"{patch.name} goes unseen by {test}; name a test that finds it, or write one. The bug is: "
        f"{headline(patch)}\n{ended.output}"
    )


def test_every_bug_has_its_row() -> None:
    """No patch without a test, no row without a patch."""
    assert [f"{name}.patch" for name in MUTANTS] == sorted(path.name for path in PATCHES.iterdir())


@pytest.mark.parametrize("name", MUTANTS)
def test_a_bug_can_be_planted(name: str) -> None:
    """The patch says in one sentence what the bug is, and changes a file into another that is still
    Python; the test that is to find it is there."""
    patch = PATCHES / f"{name}.patch"
    assert headline(patch).endswith(".")
    for file, text in patched(patch).items():
        assert text != (ROOT / file).read_text(encoding="utf-8")
        ast.parse(text, file)
    file, _, test = MUTANTS[name].partition("::")
    functions = ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
    found = {node.name for node in functions if isinstance(node, ast.FunctionDef)}
    assert test.partition("[")[0] in found, f"{MUTANTS[name]} is gone; name another test"


@pytest.mark.parametrize("content", ["", "a = 1\n", "x = 1\n" * 2])
def test_a_patch_that_no_longer_applies_says_what_to_do(tmp_path: Path, content: str) -> None:
    """Whether the file, or the place in it, is gone, or there are two such places."""
    patch = tmp_path / "01-x.patch"
    patch.write_text("X is 2.\n\n--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-x = 1\n+x = 2\n")
    if content:
        (tmp_path / "x.py").write_text(content)
    with pytest.raises(StalePatchError, match=r"no longer applies.* The bug is: X is 2\. Plant it"):
        patched(patch, tmp_path)
    (tmp_path / "x.py").write_text("y = 0\nx = 1\n")
    assert patched(patch, tmp_path) == {"x.py": "y = 0\nx = 2\n"}


@pytest.mark.parametrize(
    ("code", "last", "passed", "failed"),
    [
        (0, "1 passed in 0.52s", True, False),
        (1, "1 failed in 0.52s", False, True),
        (1, "1 failed, 1 error in 0.52s", False, False),
        (1, "1 error in 0.52s", False, False),
        (2, "1 failed in 0.52s", False, False),
        (4, "no tests ran in 0.52s", False, False),
        (0, "1 skipped in 0.52s", False, False),
    ],
)
def test_only_a_test_that_failed_has_found_something(
    code: int, last: str, passed: bool, failed: bool
) -> None:
    """An error while a test is collected or set up proves nothing, nor does a test that is skipped
    or that there is not."""
    ended = Ended(code, f"F\n{last}\n")
    assert (ended.has_passed, ended.has_failed) == (passed, failed)
