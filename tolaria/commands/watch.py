"""`esper watch`: follow a run through the bus alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

import oona
from leyline import RunError
from tolaria.commands.history import read_view, standing, standing_line
from tolaria.disk.run import RunDirectory
from tolaria.show.bus import bus_line
from tolaria.show.gaps import gap_words
from tolaria.show.terminal import Terminal


def watch_run(run: str) -> None:
    """Show a run live, from its directory or from the URL of its bus, until it ends.

    Of a run that has ended, all that its bus still holds is shown again.
    """
    console = Console(highlight=False)
    source: str | Path = run if "://" in run else Path(run)
    directory = _open(source) if isinstance(source, Path) else None
    if directory is not None:
        _say_if_ended(console, directory)
        oona.drain(directory.path)  # what a killed run left: others may wait for it too
    with Terminal(console) as terminal:
        events = oona.read(source, follow=True)
        for envelope in events:
            terminal.apply(envelope.event)
    if directory is not None:
        terminal.view.standing = standing(directory, terminal.view, is_held=directory.is_held())
    if terminal.view.bus is not None:
        console.print(bus_line(terminal.view.bus), markup=False, soft_wrap=True)
    if events.gaps:
        console.print(gap_line(events.gaps), markup=False, soft_wrap=True)
    console.print(f"{run}: {terminal.view.status}", markup=False, soft_wrap=True)


def gap_line(gaps: Sequence[oona.Gap]) -> str:
    """What a reader missed, in one line."""
    return (
        f"{gap_words(gaps)}: the server had trimmed them before they were read, or they are among "
        "those dropped"
    )


def _open(path: Path) -> RunDirectory:
    try:
        run = RunDirectory.open(path, lock=False)
    except RunError as error:
        raise RunError(f"{error}; or give the URL of a bus, such as unix://PATH") from error
    if not run.outbox.is_file() and not (path / "bus.json").is_file():
        raise RunError(
            f"{path} has no events to watch: its telemetry was off; `esper inspect {path}` shows "
            "what its journal tells"
        )
    return run


def _say_if_ended(console: Console, run: RunDirectory) -> None:
    try:
        view = read_view(run)
    except RunError:
        return  # the journal is damaged, which is no matter for one who reads the bus
    if line := standing_line(run, view):
        console.print(f"{run.path}: {line}", markup=False, soft_wrap=True)
    elif view.ended is not None:
        words = f"{view.status} after epoch {view.epoch}; its events once more:"
        console.print(f"{run.path} has ended: {words}", markup=False, soft_wrap=True)
