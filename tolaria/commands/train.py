"""`esper train`: build what was asked for, fit it with the callback, show it, sum it up."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import lightning.pytorch as pl
import msgspec
import torch
from rich.console import Console

from leyline import ConfigError, Event, RunStarted
from oona import BusStatistics
from oona.servers.url import without_password
from tolaria.commands.building import build
from tolaria.commands.compare import ANNOUNCEMENT, compare
from tolaria.commands.dry_run import dry_run as look_ahead
from tolaria.commands.quiet import quiet_lightning, quiet_trainer
from tolaria.commands.resuming import ResumePoint, find
from tolaria.commands.runs import StoredSpec, store_spec
from tolaria.commands.spec import TrainSpec, divided, spec_of
from tolaria.commands.stops import Stops
from tolaria.config import EsperConfig
from tolaria.environment import warn_of_unknown
from tolaria.lightning.callback import EsperCallback
from tolaria.show.output import Output
from tolaria.show.summary import summarise
from tolaria.show.terminal import Terminal


def run_command(
    target: str | None, *, resume: bool, compare: bool, dry_run: bool, **options: Any
) -> None:
    """Run `esper train` with its options as they were given; None is "not given"."""
    console = Output()
    stated, settings = divided(options)
    spec = spec_of(target, stated)
    warn_of_unknown(None, EsperConfig)
    config = spec.config(settings)
    if dry_run:
        if resume or compare:
            raise ConfigError("--dry-run is of a new run alone; leave out --resume and --compare")
        _prepare(spec)
        look_ahead(console, spec, config)
        return
    point = ResumePoint(None, None, spec, config.rng_seed)
    if resume:
        names = {*stated, *settings, *(["target"] if target is not None else [])}
        point = find(console, spec, config, names)
        if point.is_finished and not compare:
            return
        settings["rng_seed"] = point.rng_seed
        if point.run_dir is not None:
            settings["run_dir"] = str(point.run_dir)
        config = point.spec.config(settings)
    _train(console, point, config, compared=compare)


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


def _prepare(spec: TrainSpec) -> None:
    """Settings of the process, as the spec has them."""
    quiet_lightning()
    threads = spec.num_threads()
    if threads is not None:
        torch.set_num_threads(threads)


def _train(console: Console, point: ResumePoint, config: EsperConfig, *, compared: bool) -> None:
    callback = EsperCallback(config)
    callback.resume_run, callback.close_after_fit = point.run_dir is not None, False
    with Stops() as stops:
        _run(console, point, callback, stops, compared=compared)
    if stops.received is not None:
        if callback.orchestrator is not None:
            callback.orchestrator.close("interrupted")
        _say_interrupted(console, callback)
        sys.exit(stops.exit_code)


def _run(
    console: Console,
    point: ResumePoint,
    callback: EsperCallback,
    stops: Stops,
    *,
    compared: bool,
) -> None:
    """Fit, test, end the run, sum it up."""
    spec, config = point.spec, callback.config
    _prepare(spec)
    module, data, num_epochs = build(spec, config.rng_seed)
    if compared:
        _announce_compare(console, module, data)
    bus = None if config.telemetry == "off" else partial(_ledger, callback)
    with Terminal(console, bus=bus) as terminal:
        keep_spec = partial(_on_begin, console, callback, spec, num_epochs)
        callback.listeners += [keep_spec, terminal.apply]
        callbacks = [stops, callback, _Progress(terminal)]
        trainer = quiet_trainer(num_epochs, callbacks, spec.trainer, config.rng_seed)
        trainer.fit(module, data, ckpt_path=point.checkpoint)
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


def _on_begin(
    console: Console, callback: EsperCallback, spec: TrainSpec, num_epochs: int, event: Event
) -> None:
    """When the run begins: keep what it was asked for, and say where its numbers are."""
    if not isinstance(event, RunStarted):
        return
    config, held = callback.config, callback.orchestrator
    if callback.run_dir is not None:
        stored = msgspec.structs.replace(spec, esper=_settings(config))
        store_spec(
            callback.run_dir,
            StoredSpec(spec=stored, rng_seed=config.rng_seed, epochs=num_epochs),
        )
    exporters = None if held is None else held.session.exporters
    if exporters is not None and exporters.url is not None:
        console.print(f"metrics at {exporters.url}", soft_wrap=True)


def _ledger(callback: EsperCallback) -> BusStatistics | None:
    held = callback.orchestrator
    return None if held is None else held.session.bus.statistics()


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
    """What a config says that the defaults do not, as plain values; a resumed run keeps to it.

    The bus's password is left out: a resumed run takes it from the environment.
    """
    plain, usual = msgspec.to_builtins(config), msgspec.to_builtins(EsperConfig())
    plain["telemetry"] = without_password(plain["telemetry"])
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
    if callback.run_dir is None or callback.orchestrator is None:
        console.print("interrupted before the run began")
        return
    saved = callback.orchestrator.committed_epoch
    where = f"after epoch {saved}" if saved else "from the beginning"
    again = f"the same command and --resume --run-dir {callback.run_dir} go on {where}"
    console.print(f"interrupted; {again}", soft_wrap=True)
