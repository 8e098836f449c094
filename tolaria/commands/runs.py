"""Reading a run directory from another process: its spec, its newest checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import msgspec

from leyline import CheckpointError, RunError
from tolaria.commands.history import read_view
from tolaria.commands.spec import TrainSpec
from tolaria.disk.files import write_atomic
from tolaria.disk.run import RunDirectory, require
from tolaria.disk.sealed import seal, unseal
from tolaria.disk.store import CheckpointStore

SPEC_FILE: Final = "spec.json"


class StoredSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `esper train` was asked for, as the run directory keeps it."""

    spec: TrainSpec
    rng_seed: int
    epochs: Annotated[int, msgspec.Meta(ge=1)]


def store_spec(run_dir: Path, stored: StoredSpec) -> None:
    """Keep a spec in a run directory, which cannot be resumed without it from now on."""
    write_atomic(run_dir / SPEC_FILE, seal(msgspec.to_builtins(stored)))
    require(run_dir, SPEC_FILE)


def read_stored_spec(run_dir: Path) -> StoredSpec:
    """The spec of a run that `esper train` started.

    Raises:
        RunError: the run was started otherwise, or the file is damaged.
    """
    path = run_dir / SPEC_FILE
    if not path.is_file():
        if SPEC_FILE in RunDirectory.open(run_dir, lock=False).essential:
            raise RunError(f"{path} is missing, and with it what the run was started with")
        raise RunError(
            f"{run_dir} was not started by `esper train`, so its model cannot be built from here; "
            "in your own code, use kasmina.load(model, checkpoint)"
        )
    try:
        return msgspec.convert(unseal(path.read_bytes()), StoredSpec)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {error}") from error


def newest_checkpoint(run: RunDirectory) -> Path:
    """The newest whole checkpoint of a run.

    Raises:
        CheckpointError: there is none, with what was wrong with those that are there.
    """
    newest, problems = look_for_checkpoint(run)
    if newest is None:
        what = "; ".join(problems) or "none was written yet"
        raise CheckpointError(f"{run.path} has no whole checkpoint: {what}")
    return newest


def look_for_checkpoint(run: RunDirectory) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint, if any, and what is wrong with newer ones; writes nothing."""
    store = CheckpointStore(run.checkpoints, read_only=True)
    newest = store.newest_valid()
    return newest, [f"{name}: {'; '.join(flaws)}" for name, flaws in store.problems.items()]


def newest_run(parent: Path = Path("runs")) -> tuple[Path | None, list[Path]]:
    """The run to go on with, and newer ones that were passed over.

    Those failed, or never began, and left no checkpoint. Where there are no others it is the
    newest of them; None if there is no run.
    """
    there = [path for path in parent.glob("*") if (path / "run.json").is_file()]
    there.sort(key=lambda path: RunDirectory.open(path, lock=False).created, reverse=True)
    for number, path in enumerate(there):
        if not _came_to_nothing(path):
            return path, there[:number]
    return next(iter(there), None), []


def _came_to_nothing(path: Path) -> bool:
    run = RunDirectory.open(path, lock=False)
    if CheckpointStore(run.checkpoints, read_only=True).paths():
        return False
    if not (path / SPEC_FILE).is_file():
        return True
    try:
        return read_view(run).status == "failed"
    except RunError:
        return False  # the journal is damaged; what it says of that is worth more than a guess
