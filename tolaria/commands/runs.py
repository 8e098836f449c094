"""Reading a run directory from another process: its spec, its newest checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from leyline import CheckpointError, RunError
from tolaria.commands.spec import TrainSpec
from tolaria.disk.files import write_atomic
from tolaria.disk.run import RunDirectory
from tolaria.disk.store import CheckpointStore

SPEC_FILE: Final = "spec.json"


class StoredSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What `esper train` was asked for, as the run directory keeps it."""

    spec: TrainSpec
    rng_seed: int
    epochs: int


def store_spec(run_dir: Path, stored: StoredSpec) -> None:
    """Keep a spec in a run directory."""
    write_atomic(run_dir / SPEC_FILE, msgspec.json.format(msgspec.json.encode(stored)) + b"\n")


def read_stored_spec(run_dir: Path) -> StoredSpec:
    """The spec of a run that `esper train` started.

    Raises:
        RunError: the run was started otherwise, or the file is damaged.
    """
    path = run_dir / SPEC_FILE
    if not path.is_file():
        raise RunError(
            f"{run_dir} was not started by `esper train`, so its model cannot be built from here; "
            "in your own code, use kasmina.load(model, checkpoint)"
        )
    try:
        return msgspec.json.decode(path.read_bytes(), type=StoredSpec)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
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


def newest_run(parent: Path = Path("runs")) -> Path | None:
    """The run directory that was created last, or None."""
    found = [path for path in parent.glob("*") if (path / "run.json").is_file()]
    return max(found, key=lambda path: RunDirectory.open(path, lock=False).created, default=None)
