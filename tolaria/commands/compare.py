"""`esper train --compare`: the host alone, for the same epochs and for the same FLOPs."""

from __future__ import annotations

import time
from typing import Any, Final, NamedTuple

import lightning.pytorch as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tolaria.commands.building import build
from tolaria.commands.spec import TrainSpec
from tolaria.config import EsperConfig
from tolaria.orchestrator import Orchestrator
from tolaria.show.phrases import milliseconds

ANNOUNCEMENT: Final = (
    "compare: after this run the host alone is trained twice, for the same epochs and for the same "
    "FLOPs: as much work again, which takes a small host several times as long"
)
_NUM_LINES: Final = 10
"""Lines that tell of an arm's progress where there is no terminal to draw a bar on."""


class _Arm(NamedTuple):
    """One training and what it came to on the test split."""

    name: str
    num_epochs: int
    flops: int
    metrics: dict[str, float]


def compare(
    console: Console,
    spec: TrainSpec,
    config: EsperConfig,
    grown: Orchestrator,
    num_epochs: int,
    tested: dict[str, float],
) -> None:
    """Train the host alone twice and print all three on the test split.

    FLOPs are those of matrix products and convolutions, counted by torch; the grown run's
    include every trial.
    """
    spent = grown.growth.flops.total
    epoch_flops = grown.growth.flops.host_step * max(1, grown.step // max(1, grown.epoch))
    arms = [_Arm("grown", num_epochs, spent, tested)]
    wanted = [("host alone, same epochs", num_epochs)]
    if epoch_flops:
        wanted.append(("host alone, same FLOPs", max(1, round(spent / epoch_flops))))
    for name, epochs in wanted:
        started_s = time.monotonic()
        metrics = _host_alone(console, name, spec, config, epochs)
        took = milliseconds((time.monotonic() - started_s) * 1e3)
        console.print(f"{name}: {epochs:,} epochs in {took}")
        arms.append(_Arm(name, epochs, epochs * epoch_flops, metrics))
    console.print(_table(arms))


class _Epochs(pl.Callback):
    """Tells how far an arm has come: a bar on a terminal, else a line for each tenth."""

    def __init__(self, console: Console, name: str, num_epochs: int):
        columns = (
            TextColumn("{task.description}"),
            BarColumn(24),
            MofNCompleteColumn(),
            TextColumn("epochs"),
            TimeRemainingColumn(),
        )
        self._console = console
        self._name, self._num_epochs = name, num_epochs
        self.bar: Final = Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        )
        self._task = self.bar.add_task(name, total=num_epochs)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        done, total = trainer.current_epoch + 1, self._num_epochs
        self.bar.update(self._task, completed=done)
        if self.bar.disable and done * _NUM_LINES // total > (done - 1) * _NUM_LINES // total:
            self._console.print(f"{self._name}: epoch {done:,} of {total:,}")


def _host_alone(
    console: Console, name: str, spec: TrainSpec, config: EsperConfig, epochs: int
) -> dict[str, float]:
    module, data, _ = build(spec, config.rng_seed, epochs)
    progress = _Epochs(console, name, epochs)
    options: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "limit_val_batches": 0,
        **spec.trainer,
        "max_epochs": epochs,
        "callbacks": [progress],
    }
    trainer = pl.Trainer(**options)
    pl.seed_everything(config.rng_seed % 2**32, verbose=False)
    with progress.bar:
        trainer.fit(module, data)
    return dict(trainer.test(module, data, verbose=False)[0])


def _table(arms: list[_Arm]) -> Table:
    table = Table(title="test split, which no decision has seen", box=None, pad_edge=False)
    names = sorted({name for arm in arms for name in arm.metrics})
    table.add_column("arm")
    for heading in ("epochs", "GFLOPs", *names):
        table.add_column(heading, justify="right")
    for arm in arms:
        cells = [f"{arm.metrics[name]:.4f}" if name in arm.metrics else "-" for name in names]
        table.add_row(arm.name, f"{arm.num_epochs:,}", f"{arm.flops / 1e9:,.1f}", *cells)
    return table
