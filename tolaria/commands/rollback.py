"""`esper rollback`: an earlier checkpoint becomes the one that a resume goes on from."""

from __future__ import annotations

from pathlib import Path

from leyline import CheckpointError
from tolaria.commands.history import read_view
from tolaria.disk.checkpoint import order, verify
from tolaria.disk.run import RunDirectory
from tolaria.disk.store import CheckpointStore
from tolaria.show.output import Output
from tolaria.show.phrases import counted


def roll_back_run(path: Path, step: int) -> None:
    """Set every checkpoint after one aside; the journal is cut back to it by the next resume.

    Args:
        step: of the checkpoint to go back to.

    Raises:
        RunError: there is no run at `path`.
        RunLockedError: the run is live.
        CheckpointError: there is no sound checkpoint of that step; nothing was changed.
    """
    with RunDirectory.open(path) as run:
        view = read_view(run)
        store = CheckpointStore(run.checkpoints)
        there = store.paths()
        chosen = [found for found in there if order(found)[0] == step]
        if not chosen:
            steps = ", ".join(str(order(found)[0]) for found in there) or "none"
            raise CheckpointError(f"{path} has no checkpoint of step {step}; there are: {steps}")
        target = chosen[-1]
        problems = verify(target)
        if problems:
            raise CheckpointError(f"{target} is damaged: {'; '.join(problems)}; choose another")
        epoch = store.manifest(target).occasion.epoch
        aside = store.undo_after(target)
    console = Output()

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    for moved in aside:
        say(f"set aside: {moved}")
    lost = counted(max(0, view.step - step), "step")
    if epoch:  # checkpoints of format 1 do not say
        lost = f"{counted(max(0, view.epoch - epoch), 'epoch')}, {lost}"
    say(f"{path} is at step {step} again; undone: {lost}. The next resume goes on from there.")
