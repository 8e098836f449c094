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
from tolaria.commands.compare import ANNOUNCEMENT, compare
from tolaria.commands.resuming import ResumePoint, find
from tolaria.commands.runs import StoredSpec, store_spec
from tolaria.commands.spec import TrainSpec, build, read_spec
from tolaria.config import EsperConfig
from tolaria.environment import warn_of_unknown
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
    stated = {n: v for n, v in given.items() if v is not None}
    spec = _spec_of(target, stated)
    settings = {"rng_seed": rng_seed, "run_dir": run_dir, "telemetry": telemetry, "policy": policy}
    settings = {name: value for name, value in settings.items() if value is not None}
    warn_of_unknown(None, EsperConfig)
    config = spec.config(settings)
    point = ResumePoint(None, None, spec, config.rng_seed)
    if resume:
        names = {*stated, *settings, *(["target"] if target is not None else [])}
        point = find(console, spec, config, names)
        changes = {"rng_seed": point.rng_seed, "run_dir": str(point.run_dir or run_dir or "")}
        config = point.spec.config({**settings, **{n: v for n, v in changes.items() if v != ""}})
    _train(console, point, config, compared=compare)


def _spec_of(target: str | None, given: dict[str, Any]) -> TrainSpec:
    if target is None or ":" in target:
        spec = TrainSpec(model=target)
    elif target.endswith(".toml") or Path(target).exists():
        spec = read_spec(Path(target))
    else:
        raise ConfigError(
            f"{target!r} is neither a config file (CONFIG.toml) nor a model "
            "(package.module:MyLightningModule)"
        )
    return msgspec.structs.replace(spec, **given)


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


def _train(console: Console, point: ResumePoint, config: EsperConfig, *, compared: bool) -> None:
    spec = point.spec
    quiet_lightning()
    threads = spec.num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    module, data, num_epochs = build(spec, config.rng_seed)
    if compared:
        _announce_compare(console, module, data)
    callback = EsperCallback(config)
    callback.resume_run, callback.close_after_fit = point.run_dir is not None, False

    def keep_spec(event: Event) -> None:
        if isinstance(event, RunStarted) and callback.run_dir is not None:
            store_spec(
                callback.run_dir,
                StoredSpec(
                    spec=msgspec.structs.replace(spec, esper=_settings(config)),
                    rng_seed=config.rng_seed,
                    epochs=num_epochs,
                ),
            )

    def ledger() -> Any:
        held = callback.orchestrator
        return None if held is None else held.session.bus.statistics()

    bus = None if config.telemetry == "off" else ledger
    try:
        with Terminal(console, bus=bus) as terminal:
            callback.listeners += [keep_spec, terminal.apply]
            options = {"max_epochs": num_epochs, **QUIET_TRAINER, **spec.trainer}
            options["callbacks"] = [callback, _Progress(terminal)]
            trainer = pl.Trainer(**options)
            # Lightning takes 32 bits.
            pl.seed_everything(config.rng_seed % 2**32, verbose=False)
            trainer.fit(module, data, ckpt_path=point.checkpoint)
    except SystemExit:
        # Lightning turns Ctrl-C into this after it has told the callbacks.
        _say_interrupted(console, callback)
        sys.exit(_INTERRUPTED)
    orchestrator = callback.orchestrator
    assert orchestrator is not None
    tested = _test(trainer, module, data)
    statistics = orchestrator.close("finished", tested)
    session = orchestrator.session
    view = session.recorder.view
    shown = None if config.telemetry == "off" else statistics
    console.print(summarise(view, bus=shown, run_dir=session.run.path, report=session.report))
    if statistics.queued and statistics.state != "closed":
        waiting = f"{statistics.queued:,} events wait in the run directory"
        console.print(f"bus: {waiting}: {statistics.state}", soft_wrap=True)
    if compared:
        compare(console, spec, config, orchestrator, num_epochs, tested)


def _announce_compare(
    console: Console, module: pl.LightningModule, data: pl.LightningDataModule
) -> None:
    if not _has_test(module, data):
        raise ConfigError(
            "--compare needs a test split that no decision has seen: give the model a test_step "
            "and the data a test_dataloader"
        )
    console.print(ANNOUNCEMENT, soft_wrap=True)


def _settings(config: EsperConfig) -> dict[str, Any]:
    """What a config says that the defaults do not, as plain values; a resumed run keeps to it."""
    plain, usual = msgspec.to_builtins(config), msgspec.to_builtins(EsperConfig())
    return {n: v for n, v in plain.items() if v != usual[n] and n not in ("run_dir", "rng_seed")}


def _test(
    trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule
) -> dict[str, float]:
    """Metrics on the test split, which no decision has seen; none if there is no such split."""
    if not _has_test(module, data):
        return {}
    return dict(trainer.test(module, data, verbose=False)[0])


def _has_test(module: pl.LightningModule, data: pl.LightningDataModule) -> bool:
    has_step = type(module).test_step is not pl.LightningModule.test_step
    return has_step and type(data).test_dataloader is not pl.LightningDataModule.test_dataloader


def _say_interrupted(console: Console, callback: EsperCallback) -> None:
    where = callback.run_dir
    console.print(f"interrupted; go on with the same command and --resume --run-dir {where}")


def quiet_lightning() -> None:
    """Hardware banners and tips on small settings are not what the user came for."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=PossibleUserWarning)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
