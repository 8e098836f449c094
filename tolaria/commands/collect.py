"""`esper collect`: a collector in the foreground."""

from __future__ import annotations

from pathlib import Path

import click

from leyline import ConfigError
from oona.audit import FILE_NAME
from oona.audit.store_url import check_store, redact
from oona.collecting.service import collect
from oona.servers.url import check_url
from tolaria.disk.run import RunDirectory
from tolaria.show.phrases import counted


def collect_run(target: str, *, store: str | None = None, metrics_port: int | None = None) -> None:
    """Write a run's events to a store until it ends, or those of all runs on a server until told.

    Args:
        target: a run's directory, or the URL of a server.
        store: sqlite:PATH or postgresql://...; None: audit.db in the run's directory.
        metrics_port: serve /metrics there, on the loopback interface; 0 for any that is free.

    Raises:
        RunError: there is no run, or the store cannot be used.
        ConfigError: the store is not understood, or left out for a URL.
        BusError: the URL is malformed, the database cannot be reached, or the port is taken.
    """
    if store is not None:
        check_store(store)
    if "://" not in target:
        run = RunDirectory.open(Path(target), lock=False)
        store = store or f"sqlite:{run.path / FILE_NAME}"
        source: Path | str = run.path
        is_live = run.is_held
    elif store is None:
        raise ConfigError("for all runs on a server give --store, such as sqlite:audit.db")
    else:
        check_url(target)
        source, is_live = target, _always
    num_events = collect(
        *(source, store),
        is_live=is_live,
        metrics_port=metrics_port,
        on_metrics=lambda url: click.echo(f"metrics at {url}"),
    )
    click.echo(f"{redact(store)}: {counted(num_events, 'new event')}")


def _always() -> bool:
    """A server has no end."""
    return True
