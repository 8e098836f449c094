"""A run's history, read from its directory without torch, so that commands answer at once."""

from __future__ import annotations

from tolaria.disk.journal import read
from tolaria.disk.run import RunDirectory
from tolaria.show.view import RunView


def read_view(run: RunDirectory) -> RunView:
    """A run's history, folded; what was written before a crash, if there was one."""
    view = RunView()
    if run.journal.is_file():
        for event in read(run.journal):
            view.apply(event)
    return view
