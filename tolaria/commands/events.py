"""`esper events`: what a run's audit trail tells, as a table, in JSON, or in a file."""

from __future__ import annotations

import asyncio
import difflib
import os
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

import click

from leyline import Envelope, RunError
from oona.audit import catch_up, export_events, find_gaps, known_seeds, read_trail
from oona.audit.export import check_format
from oona.audit.plain import json_line
from oona.audit.query import Query, parse_since
from oona.audit.row import kind_of
from oona.audit.store_url import POSTGRES, SQLITE
from oona.audit.trail import FILE_NAME
from oona.metrics.operations import Operations
from oona.servers.url import SCHEMES
from tolaria.disk.run import RunDirectory
from tolaria.show.event_words import event_words
from tolaria.show.gaps import gap_words
from tolaria.show.phrases import clean, counted


def show_events(
    run: str,
    *,
    kinds: tuple[str, ...] = (),
    seed: str | None = None,
    since: str | None = None,
    epoch: int | None = None,
    limit: int | None = None,
    as_json: bool = False,
    export: Path | None = None,
) -> None:
    """Write what the run's outbox and server still hold to its trail, then show what is asked for.

    Args:
        run: a run's directory; or sqlite:PATH or postgresql://..., shown as it is.
        kinds, seed, since, epoch, limit: which events; all conditions hold together.
        as_json: one JSON object a line.
        export: a .jsonl or .parquet file to write instead of showing anything.

    Raises:
        ConfigError: an option that is not understood.
        RunError: there is no run with events, or its trail cannot be used.
        BusError: the database cannot be reached.
        ExportError: the file cannot be written.
    """
    since_ns = None if since is None else parse_since(since, time.time_ns())
    query = Query(kinds=kinds, seed=seed, since_ns=since_ns, epoch=epoch, limit=limit)
    if export is not None:
        check_format(export)
    trail: Path | None = None
    if run.startswith(POSTGRES):
        envelopes = iter(asyncio.run(_selected(run, query)))
    else:
        is_trail = run.startswith(SQLITE)
        trail = Path(run.removeprefix(SQLITE)) if is_trail else _caught_up(Path(run))
        envelopes = read_trail(trail, query)
    try:
        if export is not None:
            num_events = export_events(envelopes, export)
            click.echo(f"{export}: {counted(num_events, 'event')}")
        elif as_json:
            for envelope in envelopes:
                sys.stdout.buffer.write(json_line(envelope))
            sys.stdout.flush()
        else:
            num_events = _show_table(envelopes)
            if trail is not None:
                if not num_events and seed is not None:
                    _name_seeds(trail, seed)
                _show_gaps(trail)
    except BrokenPipeError:
        # Whoever read has seen enough; what Python flushes at the end must find a place to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def _selected(url: str, query: Query) -> list[Envelope]:
    from oona.audit.postgres import PostgresStore  # late: psycopg is an extra

    store = await PostgresStore.open(url, Operations())
    try:
        return [envelope async for envelope in store.select(query)]
    finally:
        await store.close()


def _caught_up(path: Path) -> Path:
    """The trail of a run, with all in it that can be read now."""
    if str(path).partition(":")[0] in SCHEMES:
        raise RunError(
            "a server has no trail of its own to search; `esper collect URL --store "
            "sqlite:events.db` fills one, and `esper events sqlite:events.db` searches it"
        )
    run = RunDirectory.open(path, lock=False)
    trail = run.path / FILE_NAME
    if not trail.is_file() and not run.outbox.is_file() and not (path / "bus.json").is_file():
        raise RunError(
            f"{path} has no events: its telemetry was off; `esper inspect {path}` shows what its "
            "journal tells"
        )
    done = catch_up(run.path)
    if done.num_refused:
        click.echo(f"{counted(done.num_refused, 'damaged record')} passed over", err=True)
    if done.problem:
        click.echo(f"the run's server was not read: {done.problem}", err=True)
    return trail


def _show_table(envelopes: Iterable[Envelope]) -> int:
    """Print a line for each event, or that there is none; returns how many there were."""
    num_events = 0
    for line in _lines(envelopes):
        click.echo(line)
        num_events += 1
    if not num_events:
        click.echo("no event fits", err=True)
    return num_events


def _name_seeds(trail: Path, seed: str) -> None:
    """Say which seeds there are, if none has the name that was asked for."""
    known = known_seeds(trail)
    if seed not in known:
        close = difflib.get_close_matches(seed, known, n=3, cutoff=0.3) or known[:3]
        some = f"; there is {', '.join(clean(name) for name in close)}" if close else ""
        click.echo(f"no seed is named {seed!r}{some}", err=True)


def _show_gaps(trail: Path) -> None:
    gaps = find_gaps(trail)
    if gaps:
        click.echo(
            f"not in the trail: {gap_words(gaps)}, dropped at the source, trimmed by the server "
            "before they were read, or on their way",
            err=True,
        )


def _lines(envelopes: Iterable[Envelope]) -> Iterator[str]:
    day = ""
    for envelope in envelopes:
        when = _local_time(envelope.wall_ns)
        if when[:10] != day:
            day = when[:10]
            yield f"--- {day}"
        epoch = getattr(envelope.event, "epoch", None)
        kind = kind_of(type(envelope.event))
        words = event_words(envelope.event)
        place = "" if epoch is None else f"epoch {epoch}"
        yield f"{when[11:]:12}  {clean(place):9}  {kind:14}  {words}".rstrip()


def _local_time(wall_ns: int) -> str:
    try:
        when = datetime.fromtimestamp(wall_ns // 1_000_000_000).astimezone()
    except (ValueError, OverflowError, OSError):
        return "no such day"
    return f"{when:%Y-%m-%d %H:%M:%S}.{wall_ns // 1_000_000 % 1000:03}"
