"""`esper verify`: whether everything that a run has on disk is what was written."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from tolaria.disk.audit import audit
from tolaria.disk.run import RunDirectory


def verify_run(path: Path) -> None:
    """Check a run and list what is bad and why; the process then ends with exit code 1.

    Raises:
        RunError: there is no run at `path`.
    """
    run = RunDirectory.open(path, lock=False)
    console = Console(highlight=False)
    num_sound = num_bad = 0
    for finding in audit(run):
        num_sound += not finding.problems
        num_bad += bool(finding.problems)
        for problem in finding.problems:
            console.print(f"bad: {finding.name}: {problem}", markup=False, soft_wrap=True)
    if num_bad:
        console.print(f"{path}: {num_bad} bad, {num_sound} sound", markup=False, soft_wrap=True)
        sys.exit(1)
    console.print(f"{path}: all {num_sound} parts are sound", markup=False, soft_wrap=True)
