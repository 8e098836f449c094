"""`esper watch`: follow a run through the bus alone."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

import oona
from leyline import RunError
from tolaria.show.terminal import Terminal


def watch_run(run: str) -> None:
    """Show a run live, from its directory or from the URL of its bus, until it ends."""
    source: str | Path = run if "://" in run else Path(run)
    if isinstance(source, Path) and not (source / "run.json").is_file():
        raise RunError(f"{source} is not a run directory; give one, or a bus URL such as unix://")
    console = Console(highlight=False)
    with Terminal(console) as terminal:
        for envelope in oona.read(source, follow=True):
            terminal.apply(envelope.event)
    console.print(f"{run}: {terminal.view.status or 'the bus has no more events'}")
