"""The audit of a run directory: every digest, CRC and structure, by reading alone."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import NamedTuple

from kasmina.stored_seeds import described_seeds
from leyline import CheckpointError, RunError
from oona import damage
from tolaria.disk import journal
from tolaria.disk.checkpoint import load, verify
from tolaria.disk.manifest import read_manifest
from tolaria.disk.migrations import growth_states
from tolaria.disk.run import RunDirectory
from tolaria.disk.seed_records import FILE_NAME, num_damaged_records
from tolaria.disk.store import CheckpointStore


class Finding(NamedTuple):
    """One thing that was looked at, by its path in the run, and what is wrong with it."""

    name: str
    problems: tuple[str, ...]


def audit(run: RunDirectory) -> Iterator[Finding]:
    """Look at everything that a run has written, one thing at a time; nothing is changed.

    Of a live run the newest records may still be on their way, which is not a fault.
    """
    yield Finding("run.json", ())  # opening the run has read it
    ends = yield from _journal(run)
    for path in CheckpointStore(run.checkpoints, read_only=True).paths():
        problems = _checkpoint(path, run.run_id, ends)
        if path.is_dir():  # a live run may have removed it meanwhile
            yield Finding(str(path.relative_to(run.path)), tuple(problems))
    if run.outbox.is_file():
        yield Finding(run.outbox.name, tuple(damage(run.outbox)))
    records = run.path / FILE_NAME
    if records.is_file():
        yield Finding(FILE_NAME, tuple(_seed_records(records)))


def _journal(run: RunDirectory) -> Generator[Finding, None, set[int] | None]:
    """Yields its finding; returns where its records end, None if that is not known."""
    if not run.journal.is_file():
        return None
    ends = {0}
    try:
        ends.update(journal.ends(run.journal))
    except RunError as error:
        yield Finding(run.journal.name, (str(error),))
        return None
    yield Finding(run.journal.name, ())
    return ends


def _checkpoint(path: Path, run_id: str, ends: set[int] | None) -> list[str]:
    problems = verify(path)
    if problems:
        return problems
    try:
        manifest, state = read_manifest(path), load(path)
        seeds = described_seeds(state.get("state_dict") or {})
    except CheckpointError as error:
        return [str(error)]
    if manifest.format > 1:
        stated = [(seed.site, seed.seed, seed.blueprint) for seed in manifest.structure.seeds]
        held = [(site, seed.seed, seed.blueprint) for (site, _), seed in seeds.items()]
        if stated != held:
            problems.append(f"its manifest states the seeds {stated}, its model has {held}")
    for growth in growth_states(state):
        position = growth["journal_position"]
        if growth["run_id"] == run_id and ends is not None and position not in ends:
            problems.append(f"it belongs to byte {position} of the journal, where no record ends")
    return problems


def _seed_records(path: Path) -> list[str]:
    try:
        num_damaged = num_damaged_records(path)
    except CheckpointError as error:
        return [str(error)]
    return [f"{num_damaged} of its records are damaged"] if num_damaged else []
