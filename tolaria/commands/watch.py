"""`esper watch`: follow a run through the bus alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

import oona
from leyline import Envelope, RunError
from tolaria.commands.history import read_view, standing, standing_line
from tolaria.disk.run import RunDirectory
from tolaria.show.bus import bus_line
from tolaria.show.gaps import gap_words
from tolaria.show.output import Output
from tolaria.show.phrases import flops_words
from tolaria.show.terminal import Terminal

_SILENCE_NS: Final = 600_000_000_000
"""After which runs that have not ended are taken for dead, when a server is watched."""


def watch_run(run: str) -> None:
    """Show a run live, from its directory or from the URL of its bus, until it ends.

    A server's runs are watched until all have ended, or been silent for ten minutes. Of a run that
    has ended, all that its bus still holds is shown again.
    """
    console = Output()
    source: str | Path = run if "://" in run else Path(run)
    directory = _open(source) if isinstance(source, Path) else None
    if directory is not None:
        _say_if_ended(console, directory)
        oona.drain(directory.path)  # what a killed run left: others may wait for it too
    heard = _Heard()
    with Terminal(console) as terminal:
        is_live = heard.lately if directory is None else directory.is_held
        events = oona.read(source, follow=True, is_live=is_live)
        for envelope in events:
            heard.note(envelope)
            terminal.apply(envelope.event)
    if directory is not None:
        terminal.view.standing = standing(directory, terminal.view, is_held=directory.is_held())
    if words := flops_words(terminal.view.flops_spent):
        console.print(f"FLOPs: {words}", markup=False, soft_wrap=True)
    if terminal.view.bus is not None:
        console.print(bus_line(terminal.view.bus), markup=False, soft_wrap=True)
    if events.problem:
        said = f"the run's server was not read: {events.problem}"
        console.print(said, markup=False, soft_wrap=True)
    if events.gaps:
        console.print(gap_line(events.gaps), markup=False, soft_wrap=True)
    console.print(f"{run}: {terminal.view.status}", markup=False, soft_wrap=True)


class _Heard:
    """When the runs of a server were last heard: one that was killed never says that it ended."""

    def __init__(self) -> None:
        self._newest_ns: int | None = None

    def note(self, envelope: Envelope) -> None:
        self._newest_ns = max(self._newest_ns or 0, envelope.wall_ns)

    def lately(self) -> bool:
        """Whether there is a run yet, and not all have been silent for ten minutes."""
        newest_ns = self._newest_ns
        return newest_ns is None or time.time_ns() - newest_ns < _SILENCE_NS


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
