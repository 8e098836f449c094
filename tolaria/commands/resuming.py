"""`esper train --resume`: which run goes on, from where, and whether the command fits it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec
from rich.console import Console

from leyline import ConfigError
from tolaria.commands.history import read_view
from tolaria.commands.runs import SPEC_FILE, look_for_checkpoint, newest_run, read_stored_spec
from tolaria.commands.spec import TrainSpec
from tolaria.config import EsperConfig
from tolaria.disk.manifest import read_manifest
from tolaria.disk.run import RunDirectory
from tolaria.disk.saves import refuse_lost
from tolaria.show.phrases import clean, counted

_MUST_AGREE = ("model", "data", "model_args", "data_args")


class ResumePoint(NamedTuple):
    """A run to go on with: its directory and checkpoint, None where there is none yet."""

    run_dir: Path | None
    checkpoint: Path | None
    spec: TrainSpec
    rng_seed: int
    is_finished: bool = False
    """Whether the run has ended and no further epochs are asked for."""


def find(console: Console, spec: TrainSpec, config: EsperConfig, given: set[str]) -> ResumePoint:
    """Find the run that a command resumes; says so when nothing was saved yet.

    Args:
        given: names of what the command line stated; the rest is taken from the run.

    Raises:
        ConfigError: the command states something else than the run was started with, or names
            neither a model nor a run, and there is none.
        RunError: the run was not started by `esper train`.
        RunLockedError: a live process holds the run.
        CheckpointError: the run had checkpoints, and none that is whole is left.
    """
    if config.run_dir is not None:
        path: Path | None = Path(config.run_dir)
    else:
        path, passed_over = newest_run()
        for other in passed_over:
            console.print(f"passed over {other}: it ended before anything was saved")
    if path is None and "target" not in given:
        raise ConfigError("nothing to resume in ./runs; start a run with `esper train`")
    if path is None or not (path / "run.json").is_file():
        console.print("nothing to resume: no run was saved yet; starting from the beginning")
        return ResumePoint(None, None, spec, config.rng_seed)
    with RunDirectory.open(path) as run:  # whoever else holds it is named before all else
        return _point_of(console, run, spec, config, given)


def _point_of(
    console: Console, run: RunDirectory, spec: TrainSpec, config: EsperConfig, given: set[str]
) -> ResumePoint:
    path = run.path
    newest, problems = look_for_checkpoint(run)
    for problem in problems:
        console.print(f"checkpoint passed over: {clean(problem)}", markup=False)
    if newest is None:
        refuse_lost(run, damaged=bool(problems))
    if newest is None and not (path / SPEC_FILE).is_file():
        console.print(f"nothing saved yet in {path}: starting from the beginning")
        return ResumePoint(path, None, spec, config.rng_seed)
    stored = read_stored_spec(path)
    if not given & {"target", "data"}:
        spec = msgspec.structs.replace(stored.spec, epochs=spec.epochs, threads=spec.threads)
    _refuse_other(path, spec, stored.spec)
    _say_changes(console, stored.spec.config(), config, given)
    # The run's own settings, flags and all: a file may have changed since, or flags be left out.
    spec = msgspec.structs.replace(spec, esper=stored.spec.esper)
    if "rng_seed" in given and config.rng_seed != stored.rng_seed:
        raise ConfigError(
            f"{path} was started with rng_seed {stored.rng_seed}, not {config.rng_seed}; "
            "leave it out, or start another run"
        )
    epochs = spec.epochs or stored.epochs
    spec = msgspec.structs.replace(spec, epochs=epochs)
    point = ResumePoint(path, newest, spec, stored.rng_seed)
    if newest is None:
        console.print(f"nothing saved yet in {path}: starting from the beginning")
    elif _is_finished(run, newest, epochs):
        console.print(
            f"{path} is finished: {counted(epochs, 'epoch')} done; --epochs N with a higher N goes "
            "on",
            soft_wrap=True,
        )
        return point._replace(is_finished=True)
    elif epochs < (done := read_manifest(newest).occasion.epoch):
        raise ConfigError(
            f"{path} has done {counted(done, 'epoch')} and --epochs is {epochs}; give {done} or "
            "more, or leave it out"
        )
    else:
        console.print(f"resuming {path} from {newest.name}")
    return point


def _is_finished(run: RunDirectory, newest: Path, num_epochs: int) -> bool:
    """Whether the run's end is there, not undone by a rollback, and no more is asked for."""
    ended = read_view(run).ended
    done = read_manifest(newest).occasion.epoch
    return ended is not None and ended.status == "finished" and done == ended.epoch >= num_epochs


def _say_changes(console: Console, was: EsperConfig, now: EsperConfig, given: set[str]) -> None:
    """Name the settings that the command line changes."""
    for name in sorted(given & set(was.__struct_fields__) - {"run_dir", "rng_seed"}):
        then, wanted = getattr(was, name), getattr(now, name)
        if then != wanted:
            console.print(
                f"{name} was {then}, now {wanted}: the result will differ from that of a run "
                "without interruption"
            )


def _refuse_other(path: Path, spec: TrainSpec, then: TrainSpec) -> None:
    for name in _MUST_AGREE:
        was, now = getattr(then, name), getattr(spec, name)
        if was != now:
            raise ConfigError(
                f"{path} was started with {name} {was or 'left out'}, not {now or 'left out'}; "
                "resume it with the same command, or start another run"
            )
