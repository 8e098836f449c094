"""A run's history, read from its directory without torch, so that commands answer at once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from tolaria.disk.journal import read
from tolaria.disk.run import RunDirectory
from tolaria.show.view import RunView

KILLED: Final = "killed"
ROLLED_BACK: Final = "rolled back"
_STEP: Final = re.compile(r"(?:undone-)?step-(\d+)")


def read_view(run: RunDirectory) -> RunView:
    """A run's history, folded; what was written before a crash, if there was one."""
    is_held = run.is_held()  # before its last word is looked for, which comes before it lets go
    view = RunView()
    if run.journal.is_file():
        for event in read(run.journal):
            view.apply(event)
    view.standing = standing(run, view, is_held=is_held)
    return view


def standing(run: RunDirectory, view: RunView, *, is_held: bool) -> str:
    """What has become of a run that its own events do not tell; empty if they tell all."""
    if is_held or not view.run_id:
        return ""
    undone = _steps(run.checkpoints / "archive", "undone-step-*")
    # A resume tells of the step that it goes on from, and so of an earlier one than was undone.
    if undone and _newest_step(run) < max(undone) <= view.step:
        return ROLLED_BACK
    return "" if view.ended else KILLED


def standing_line(run: RunDirectory, view: RunView) -> str:
    """The same in a sentence with what to do; empty if there is nothing to say."""
    if view.standing == ROLLED_BACK:
        step = _newest_step(run)
        return (
            f"rolled back to step {step}; what follows is undone, and a resume goes on from there"
        )
    if view.standing == KILLED:
        return (
            f"stopped without an end after epoch {view.epoch}; go on with `esper train --resume "
            f"--run-dir {run.path}`, or with resume=True in your own loop"
        )
    return ""


def _newest_step(run: RunDirectory) -> int:
    folders = (run.checkpoints, run.checkpoints / "active", run.checkpoints / "archive")
    return max((step for folder in folders for step in _steps(folder, "step-*")), default=0)


def _steps(folder: Path, pattern: str) -> list[int]:
    """The steps of the checkpoints with such names, from the names alone."""
    found = (_STEP.match(path.name) for path in folder.glob(pattern))
    return [int(match[1]) for match in found if match is not None]
