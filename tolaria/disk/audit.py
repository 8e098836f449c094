"""The audit of a run directory: every digest, CRC and structure, by reading alone."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from kasmina.stored_seeds import described_seeds
from leyline import CheckpointError, RunError
from oona import damage
from oona.audit import FILE_NAME as TRAIL
from oona.audit import verify_trail
from oona.audit.head import head_path
from tolaria.disk import journal
from tolaria.disk.checkpoint import load, verify
from tolaria.disk.files import reason
from tolaria.disk.manifest import read_manifest
from tolaria.disk.migrations import growth_states
from tolaria.disk.run import RunDirectory
from tolaria.disk.saves import has_saved
from tolaria.disk.sealed import unseal
from tolaria.disk.seed_records import FILE_NAME, num_damaged_records, read_seed_records
from tolaria.disk.store import UNDONE, CheckpointStore

_SEALED: Final = ("spec.json", "replay.json")
"""Files that not every run has: what `esper train` was asked for, and what chance decided."""

_NUM_NAMED: Final = 5


class Finding(NamedTuple):
    """One thing that was looked at, by its path in the run, and what is wrong with it."""

    name: str
    problems: tuple[str, ...]


def audit(run: RunDirectory) -> Iterator[Finding]:
    """Look at everything that a run has written, one thing at a time; nothing is changed.

    What can be made again or tells only of the moment is left out: the report, the bus's address
    and log, the lock. Of a live run the newest records may still be on their way, which is not a
    fault.
    """
    yield Finding("run.json", ())  # opening the run has read it
    for name in _SEALED:
        if (run.path / name).is_file():
            yield Finding(name, tuple(_sealed(run.path / name)))
        elif name in run.essential:
            yield Finding(name, ("is missing, and without it the run cannot be resumed",))
    ends = yield from _journal(run)
    wanted: dict[str, int] = {}
    store = CheckpointStore(run.checkpoints, read_only=True)
    if ends is not None and (lost := _lost_checkpoints(run, store)):
        yield Finding(run.checkpoints.name, (lost,))
    for path in store.paths():
        problems, newest = _checkpoint(path, run.run_id, ends)
        wanted |= {seed: at for seed, at in newest.items() if at > wanted.get(seed, 0)}
        if path.is_dir():  # a live run may have removed it meanwhile
            yield Finding(str(path.relative_to(run.path)), tuple(problems))
    if run.outbox.is_file():
        yield Finding(run.outbox.name, tuple(damage(run.outbox)))
    elif (run.path / "bus.json").is_file():
        yield Finding(
            run.outbox.name, ("is missing, and with it the events that no reader has got",)
        )
    trail = run.path / TRAIL
    if trail.is_file() or head_path(trail).is_file():
        yield Finding(TRAIL, tuple(verify_trail(trail)))
    records = run.path / FILE_NAME
    if records.is_file() or wanted:
        yield Finding(FILE_NAME, tuple(_seed_records(records, wanted)))


def _sealed(file: Path) -> list[str]:
    try:
        unseal(file.read_bytes())
    except OSError as error:
        return [f"cannot be read: {reason(error)}"]
    except (ValueError, RecursionError) as error:
        return [f"is damaged: {error}"]
    return []


def _journal(run: RunDirectory) -> Generator[Finding, None, set[int] | None]:
    """Yields its finding; returns where its records end, None if that is not known."""
    if not run.journal.is_file():
        # A run that was killed as it began has none of these either.
        later = [FILE_NAME, *_SEALED, run.report.name]
        if any((run.path / name).is_file() for name in later):
            yield Finding(run.journal.name, ("is missing",))
            return None
        return {0}
    ends = {0}
    try:
        ends.update(journal.ends(run.journal))
    except RunError as error:
        yield Finding(run.journal.name, (str(error),))
        return None
    yield Finding(run.journal.name, ())
    return ends


def _lost_checkpoints(run: RunDirectory, store: CheckpointStore) -> str:
    """What is wrong if checkpoints were removed; empty if none were, or none were ever written.

    The newest one is never archived but by a rollback, which leaves those after it beside it.
    """
    there = store.paths()
    if any(path.parent != store.archive for path in there):
        return ""
    if there and any(store.archive.glob(f"{UNDONE}*")):
        return ""
    if not run.journal.is_file() or not has_saved(journal.read(run.journal)):
        return ""
    left = f"only {len(there)} in its archive" if there else "none of them"
    return f"the journal tells of checkpoints, and {left} is left"


def _checkpoint(path: Path, run_id: str, ends: set[int] | None) -> tuple[list[str], dict[str, int]]:
    """What is wrong with a checkpoint, and the newest record of each seed when it was written."""
    problems, newest = verify(path), dict[str, int]()
    if problems:
        return problems, newest
    try:
        manifest, state = read_manifest(path), load(path)
        seeds = described_seeds(state.get("state_dict") or {})
    except CheckpointError as error:
        return [str(error)], newest
    if manifest.format > 1:
        stated = [(seed.site, seed.seed, seed.blueprint) for seed in manifest.structure.seeds]
        held = [(site, seed.seed, seed.blueprint) for (site, _), seed in seeds.items()]
        if stated != held:
            problems.append(f"its manifest states the seeds {stated}, its model has {held}")
    for growth in growth_states(state):
        if growth["run_id"] == run_id:
            table = growth["executor"]["table"]
            ids = zip(table["names"], table["columns"]["checkpoint_id"].tolist(), strict=True)
            newest = {seed: at for seed, at in ids if 0 < at <= growth.get("seed_record", 0)}
            position = growth["journal_position"]
            if ends is not None and position not in ends:
                problems.append(
                    f"it belongs to byte {position} of the journal, where no record ends"
                )
    return problems, newest


def _seed_records(path: Path, wanted: dict[str, int]) -> list[str]:
    """What is wrong with the file, which must have for each seed this record or a later one."""
    if not path.is_file():
        return [f"is missing, and with it the records of {_some(list(wanted))}"]
    try:
        num_damaged, held = num_damaged_records(path), read_seed_records(path)
    except CheckpointError as error:
        return [str(error)]
    problems = [f"{num_damaged} of its records are damaged"] if num_damaged else []
    lost = [s for s, at in wanted.items() if s not in held or held[s].checkpoint_id < at]
    if lost and not problems:
        problems.append(f"lacks records that it had: of {_some(lost)}")
    return problems


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NUM_NAMED} more" if len(names) > _NUM_NAMED else ""
    return ", ".join(names[:_NUM_NAMED]) + more
