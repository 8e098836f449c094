"""`esper verify`: whether everything that a run has on disk is what was written."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from oona.audit import verify_trail
from oona.audit.store_url import SQLITE, check_store, redact
from oona.metrics.operations import Operations
from tolaria.disk.audit import audit
from tolaria.disk.run import RunDirectory
from tolaria.show.output import Output
from tolaria.show.phrases import clean

if TYPE_CHECKING:
    from oona.audit.head import Head


def verify_store(url: str) -> None:
    """Check the audit trail in a store by itself, as `verify_run` does that of a run.

    Args:
        url: sqlite:PATH or postgresql://...

    Raises:
        ConfigError: the URL is not understood.
        BusError: the database cannot be reached.
        RunError: what is there cannot be used.
    """
    check_store(url)
    name, ends = redact(url), ""
    if url.startswith(SQLITE):
        flaws = verify_trail(Path(url.removeprefix(SQLITE)))
    else:
        flaws, head = asyncio.run(_verify_database(url))
        ends = f", {head.num_rows:,} rows, the last with the hash {head.last_hash.hex()}"
    console = Output()
    for flaw in flaws:
        console.print(f"bad: {name}: {clean(flaw)}", markup=False, soft_wrap=True)
    if flaws:
        sys.exit(1)
    console.print(f"{name}: the audit trail is sound{ends}", markup=False, soft_wrap=True)


async def _verify_database(url: str) -> tuple[list[str], Head]:
    from oona.audit.postgres import PostgresStore  # late: psycopg is an extra

    store = await PostgresStore.open(url, Operations())
    try:
        return await store.verify(), await store.head()
    finally:
        await store.close()


def verify_run(path: Path) -> None:
    """Check a run and list what is bad and why; the process then ends with exit code 1.

    Raises:
        RunError: there is no run at `path`.
    """
    run = RunDirectory.open(path, lock=False)
    console = Output()
    num_sound = num_bad = 0
    for finding in audit(run):
        num_sound += not finding.problems
        num_bad += bool(finding.problems)
        for problem in finding.problems:
            bad = f"bad: {finding.name}: {clean(problem)}"
            console.print(bad, markup=False, soft_wrap=True)
    if num_bad:
        console.print(f"{path}: {num_bad} bad, {num_sound} sound", markup=False, soft_wrap=True)
        sys.exit(1)
    console.print(f"{path}: all {num_sound} parts are sound", markup=False, soft_wrap=True)
