"""`esper train`: build what was asked for, fit it with the callback, show it, sum it up."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import Any, Final

import lightning.pytorch as pl
import msgspec
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from rich.console import Console

from leyline import ConfigError, Event, RunStarted
from tolaria.commands.compare import compare
from tolaria.commands.runs import (
    StoredSpec,
    look_for_checkpoint,
    newest_run,
    read_stored_spec,
    store_spec,
)
from tolaria.commands.spec import TrainSpec, build, read_spec
from tolaria.config import EsperConfig
from tolaria.disk.run import RunDirectory
from tolaria.lightning.callback import EsperCallback
from tolaria.show.summary import summarise
from tolaria.show.terminal import Terminal

_INTERRUPTED: Final = 130
QUIET_TRAINER: Final = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


def run_command(
    target: str | None,
    *,
    data: str | None,
    data_dir: str | None,
    epochs: int | None,
    threads: int | None,
    rng_seed: int | None,
    run_dir: str | None,
    telemetry: str | None,
    policy: str | None,
    resume: bool,
    compare: bool,
) -> None:
    """Run `esper train` with its options as they were given; None is "not given"."""
    console = Console(highlight=False)
    given = {"data": data, "data_dir": data_dir, "epochs": epochs, "threads": threads}
    spec = _spec_of(target, {n: v for n, v in given.items() if v is not None})
    settings = {"rng_seed": rng_seed, "run_dir": run_dir, "telemetry": telemetry, "policy": policy}
    config = spec.config({name: value for name, value in settings.items() if value is not None})
    run_path = _run_to_resume(config) if resume else None
    checkpoint: Path | None = None
    if resume:
        checkpoint, epochs_then = _where_to_resume(console, run_path, spec, config)
        spec = msgspec.structs.replace(spec, epochs=spec.epochs or epochs_then)
    if run_path is not None:
        config = msgspec.structs.replace(config, run_dir=str(run_path))
    _train(console, spec, config, checkpoint, resume=run_path is not None, compared=compare)


def _spec_of(target: str | None, given: dict[str, Any]) -> TrainSpec:
    if target is not None and ":" not in target:
        spec = read_spec(Path(target))
    else:
        spec = TrainSpec(model=target)
    return msgspec.structs.replace(spec, **given)


def _run_to_resume(config: EsperConfig) -> Path | None:
    path = Path(config.run_dir) if config.run_dir is not None else newest_run()
    return path if path is not None and (path / "run.json").is_file() else None


def _where_to_resume(
    console: Console, run_path: Path | None, spec: TrainSpec, config: EsperConfig
) -> tuple[Path | None, int | None]:
    """The checkpoint to go on from and the run's epochs; says so when there is nothing yet."""
    if run_path is None:
        console.print("nothing to resume: no run was saved yet; starting from the beginning")
        return None, None
    epochs = None
    if (run_path / "spec.json").is_file():
        stored = read_stored_spec(run_path)
        epochs = stored.epochs
        for name in ("model", "data", "model_args", "data_args"):
            then, now = getattr(stored.spec, name), getattr(spec, name)
            if then != now:
                raise ConfigError(
                    f"{run_path} was started with {name}={then!r}, not {now!r}; "
                    "resume it with the same command, or start another run"
                )
        if stored.rng_seed != config.rng_seed:
            raise ConfigError(
                f"{run_path} was started with rng_seed={stored.rng_seed}, not {config.rng_seed}"
            )
    newest, problems = look_for_checkpoint(RunDirectory.open(run_path, lock=False))
    for problem in problems:
        console.print(f"checkpoint passed over: {problem}")
    if newest is None:
        console.print(f"nothing saved yet in {run_path}: starting from the beginning")
    else:
        console.print(f"resuming {run_path} from {newest.name}")
    return newest, epochs


class _Progress(pl.Callback):
    """Feeds the progress bar."""

    def __init__(self, terminal: Terminal):
        self._terminal = terminal

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else None
        total = int(trainer.num_training_batches)
        value = float(loss) if loss is not None and loss.device.type == "cpu" else float("nan")
        self._terminal.on_batch(batch_idx + 1, total, value)


def _train(
    console: Console,
    spec: TrainSpec,
    config: EsperConfig,
    checkpoint: Path | None,
    *,
    resume: bool,
    compared: bool,
) -> None:
    quiet_lightning()
    threads = spec.num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    module, data, num_epochs = build(spec, config.rng_seed)
    callback = EsperCallback(config)
    callback.resume_run, callback.close_after_fit = resume, False

    def keep_spec(event: Event) -> None:
        if isinstance(event, RunStarted) and callback.run_dir is not None:
            store_spec(
                callback.run_dir,
                StoredSpec(spec=spec, rng_seed=config.rng_seed, epochs=num_epochs),
            )

    def ledger() -> Any:
        held = callback.orchestrator
        return None if held is None else held.session.bus.statistics()

    bus = None if config.telemetry == "off" else ledger
    with Terminal(console, bus=bus) as terminal:
        callback.listeners += [keep_spec, terminal.apply]
        options = {"max_epochs": num_epochs, **QUIET_TRAINER, **spec.trainer}
        options["callbacks"] = [callback, _Progress(terminal)]
        trainer = pl.Trainer(**options)
        pl.seed_everything(config.rng_seed, verbose=False)
        try:
            trainer.fit(module, data, ckpt_path=checkpoint)
        except SystemExit:
            # Lightning turns Ctrl-C into this after it has told the callbacks.
            _say_interrupted(console, callback)
            sys.exit(_INTERRUPTED)
    orchestrator = callback.orchestrator
    assert orchestrator is not None
    tested = _test(trainer, module, data)
    statistics = orchestrator.close("finished", tested)
    view = orchestrator.session.recorder.view
    run = orchestrator.session.run
    shown = None if config.telemetry == "off" else statistics
    console.print(summarise(view, bus=shown, run_dir=run.path, report=run.report))
    if compared:
        compare(console, spec, config, orchestrator, num_epochs, tested)


def _test(
    trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule
) -> dict[str, float]:
    """Metrics on the test split, which no decision has seen; none if there is no such split."""
    has_step = type(module).test_step is not pl.LightningModule.test_step
    has_data = type(data).test_dataloader is not pl.LightningDataModule.test_dataloader
    if not (has_step and has_data):
        return {}
    return dict(trainer.test(module, data, verbose=False)[0])


def _say_interrupted(console: Console, callback: EsperCallback) -> None:
    where = callback.run_dir
    console.print(f"interrupted; go on with the same command and --resume --run-dir {where}")


def quiet_lightning() -> None:
    """Hardware banners and tips on small settings are not what the user came for."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=PossibleUserWarning)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
