"""Killed or refused at any system call of a commit, and what the kernel saw of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.reliability import struck_commits
from tests.reliability.plugin import Faults
from tests.reliability.strace import strace as strace
from tests.tolaria.disk.test_checkpoint import CASES

ROOT: Final = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.usefixtures("strace")]


def struck(folder: Path, what: str) -> dict[str, int]:
    """How many system calls of the commits of each case were struck in that way."""
    script = [sys.executable, struck_commits.__file__]
    done = subprocess.run(
        [*script, str(folder), what, *CASES],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=230,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, int] = json.loads(done.stdout)
    assert found.keys() == CASES.keys()
    return found


def test_the_kernel_sees_what_was_to_be_done(tmp_path: Path) -> None:
    """Every file that is opened to be written, write, fsync, rename and removal in a run's
    directory is an operation of FileOps, in that order, and no other call changes anything there:
    what is tested by failing those operations, or losing them, is all that there is."""
    found = struck(tmp_path, "calls")
    assert min(found.values()) > 15


@pytest.mark.fault(2)
def test_killed_at_any_system_call_the_old_or_the_new_is_there(
    tmp_path: Path, faults: Faults
) -> None:
    """Wherever the kernel ends a commit, a start finds the old checkpoint or the new one, whole,
    and the next commit works."""
    faults.injected(sum(struck(tmp_path, "kills").values()))


@pytest.mark.fault(5)
def test_refused_at_any_system_call_the_old_or_the_new_is_there(
    tmp_path: Path, faults: Faults
) -> None:
    """Whatever call the kernel answers with "disk full", "broken" or "too many files", the commit
    is done, or refused by name with the checkpoints as they were; the next commit works."""
    faults.injected(sum(struck(tmp_path, "refusals").values()))
