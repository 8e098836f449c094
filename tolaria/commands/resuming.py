"""`esper train --resume`: which run goes on, from where, and whether the command fits it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec
from rich.console import Console

from leyline import ConfigError
from tolaria.commands.runs import SPEC_FILE, look_for_checkpoint, newest_run, read_stored_spec
from tolaria.commands.spec import TrainSpec
from tolaria.config import EsperConfig
from tolaria.disk.run import RunDirectory

_MUST_AGREE = ("model", "data", "model_args", "data_args")


class ResumePoint(NamedTuple):
    """A run to go on with: its directory and checkpoint, None where there is none yet."""

    run_dir: Path | None
    checkpoint: Path | None
    spec: TrainSpec
    rng_seed: int


def find(console: Console, spec: TrainSpec, config: EsperConfig, given: set[str]) -> ResumePoint:
    """Find the run that a command resumes; says so when nothing was saved yet.

    Args:
        given: names of what the command line stated; the rest is taken from the run.

    Raises:
        ConfigError: the command states something else than the run was started with.
        RunError: the run was not started by `esper train`.
    """
    if config.run_dir is not None:
        path: Path | None = Path(config.run_dir)
    else:
        path, passed_over = newest_run()
        for other in passed_over:
            console.print(f"passed over {other}: it ended before anything was saved")
    if path is None or not (path / "run.json").is_file():
        console.print("nothing to resume: no run was saved yet; starting from the beginning")
        return ResumePoint(None, None, spec, config.rng_seed)
    newest, problems = look_for_checkpoint(RunDirectory.open(path, lock=False))
    for problem in problems:
        console.print(f"checkpoint passed over: {problem}")
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
    if newest is None:
        console.print(f"nothing saved yet in {path}: starting from the beginning")
    else:
        console.print(f"resuming {path} from {newest.name}")
    epochs = spec.epochs or stored.epochs
    return ResumePoint(path, newest, msgspec.structs.replace(spec, epochs=epochs), stored.rng_seed)


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
