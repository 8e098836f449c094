"""`esper watch`: follow a run through the bus alone."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

import oona
from leyline import RunError
from tolaria.commands.history import read_view
from tolaria.disk.run import RunDirectory
from tolaria.show.terminal import Terminal


def watch_run(run: str) -> None:
    """Show a run live, from its directory or from the URL of its bus, until it ends.

    Of a run that has ended, all that its bus still holds is shown again.
    """
    console = Console(highlight=False)
    source: str | Path = run if "://" in run else Path(run)
    if isinstance(source, Path):
        _say_if_ended(console, _open(source))
    with Terminal(console) as terminal:
        for envelope in oona.read(source, follow=True):
            terminal.apply(envelope.event)
    console.print(f"{run}: {terminal.view.status}", markup=False, soft_wrap=True)


def _open(path: Path) -> RunDirectory:
    try:
        return RunDirectory.open(path, lock=False)
    except RunError as error:
        raise RunError(f"{error}; or give the URL of a bus, such as unix://PATH") from error


def _say_if_ended(console: Console, run: RunDirectory) -> None:
    try:
        view = read_view(run)
    except RunError:
        return  # the journal is damaged, which is no matter for one who reads the bus
    if view.ended is not None:
        words = f"{view.status} after epoch {view.epoch}; its events once more:"
        console.print(f"{run.path} has ended: {words}", markup=False, soft_wrap=True)
