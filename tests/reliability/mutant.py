"""A planted bug: one small patch to a copy of the checkout, in which a named test must fail.

A patch is a unified diff, as `git diff` and `diff -u` write it, below one line that says what the
bug is. It is applied by the few lines here, so that neither git nor patch need be installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PATCHES: Final = Path(__file__).parent / "mutants"
PACKAGES: Final = ("leyline", "kasmina", "tamiyo", "oona", "tolaria")
_COPIED: Final = (*PACKAGES, "tests", "docs", "README.md", "pyproject.toml")
_LEFT_OUT: Final = shutil.ignore_patterns("__pycache__", ".hypothesis")
_RUN: Final = f"""
import sys, pytest
code = pytest.main(sys.argv[1:])
print("imported:", *(getattr(sys.modules.get(name), "__file__", None) for name in {PACKAGES}))
sys.exit(code)
"""
_HUNK: Final = re.compile(r"^@@ .*\n", re.M)


class StalePatchError(Exception):
    """A patch that the code has moved away from."""


@dataclass(frozen=True)
class Ended:
    """How a run of one test ended."""

    code: int
    output: str

    @property
    def has_passed(self) -> bool:
        """Whether there were tests and all of them passed."""
        return self.code == 0 and re.search(r"^\d+ passed", self.output, re.M) is not None

    @property
    def has_failed(self) -> bool:
        """Whether a test failed as a test: not while it was collected, set up or named."""
        last = re.findall(r"^\d+ (?:failed|passed|error).* in [\d.]+s", self.output, re.M)
        return self.code == 1 and bool(last) and "failed" in last[-1] and "error" not in last[-1]


def headline(patch: Path) -> str:
    """The sentence that says what the bug is."""
    return patch.read_text(encoding="utf-8").splitlines()[0]


def patched(patch: Path, root: Path = ROOT) -> dict[str, str]:
    """What a patch makes of each file that it touches, by its path below `root`.

    Raises:
        StalePatchError: what it replaces is not there any more, or is there twice.
    """
    made: dict[str, str] = {}
    for name, old, new in _hunks(patch.read_text(encoding="utf-8")):
        file = root / name
        text = made.get(name) or (file.read_text(encoding="utf-8") if file.is_file() else "")
        if text.count(old) != 1:
            where = "is not there" if old not in text else f"is there {text.count(old)} times"
            raise StalePatchError(
                f"{patch.name} no longer applies: what it changes in {name} {where}. The bug is: "
                f"{headline(patch)} Plant it again: make the change by hand, put `git diff` under "
                f"that line in {patch.relative_to(root)}, and undo the change"
            )
        made[name] = text.replace(old, new)
    return made


def copy_checkout(place: Path) -> None:
    """Copy what tests of the packages need, as it is now, committed or not.

    Args:
        place: a directory that is not there yet.
    """
    place.mkdir()
    for name in _COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place / name, ignore=_LEFT_OUT)
        else:
            shutil.copy2(ROOT / name, place / name)


def run_test(node: str, place: Path) -> Ended:
    """Run one test, slow or not, in a copy of the checkout, whose packages it then tests.

    Raises:
        RuntimeError: it has imported the packages from elsewhere.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, "-c", _RUN, "-q", "-m", "", "-p", "no:cacheprovider", node],
        cwd=place,
        env=kept | {"PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout + done.stderr
    for line in re.findall(r"^imported: (.*)$", done.stdout, re.M):
        homes = [name for name in line.split() if name != "None"]
        if strange := [home for home in homes if not Path(home).is_relative_to(place)]:
            raise RuntimeError(f"{node} has tested {strange[0]}, which is not below {place}")
        if homes:
            return Ended(done.returncode, output)
    # No package of ours was imported: nothing was tested, whatever the exit code says.
    return Ended(max(done.returncode, 2), output)


def _hunks(text: str) -> Iterator[tuple[str, str, str]]:
    """Every hunk: its file, the lines that it replaces and those that it puts there."""
    for part in re.split(r"^--- a/", text, flags=re.M)[1:]:
        name, _, rest = part.partition("\n")
        for body in _HUNK.split(rest)[1:]:
            lines = [line or " " for line in body.splitlines()]
            old = [line[1:] for line in lines if line[0] in " -"]
            new = [line[1:] for line in lines if line[0] in " +"]
            yield name.split("\t")[0], "\n".join(old) + "\n", "\n".join(new) + "\n"
