"""`esper train --compare`: the host alone, for the same epochs and for the same FLOPs."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
from rich.console import Console
from rich.table import Table

from tolaria.commands.spec import TrainSpec, build
from tolaria.config import EsperConfig
from tolaria.orchestrator import Orchestrator


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
    spent = grown.growth.flops.training + grown.growth.flops.trials
    epoch_flops = grown.growth.flops.host_step * max(1, grown.step // max(1, grown.epoch))
    rows = [("grown", num_epochs, spent, tested, 0.0)]
    arms = [("host alone, same epochs", num_epochs)]
    if epoch_flops:
        arms.append(("host alone, same FLOPs", max(1, round(spent / epoch_flops))))
    for name, epochs in arms:
        console.print(f"{name}: training {epochs} epochs ...")
        started_s = time.monotonic()
        metrics = _host_alone(spec, config, epochs)
        took_s = time.monotonic() - started_s
        rows.append((name, epochs, epochs * epoch_flops, metrics, took_s))
    console.print(_table(rows))


def _host_alone(spec: TrainSpec, config: EsperConfig, epochs: int) -> dict[str, float]:
    module, data, _ = build(spec, config.rng_seed, epochs)
    options: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "limit_val_batches": 0,
        **spec.trainer,
        "max_epochs": epochs,
    }
    trainer = pl.Trainer(**options)
    pl.seed_everything(config.rng_seed % 2**32, verbose=False)
    trainer.fit(module, data)
    return dict(trainer.test(module, data, verbose=False)[0])


def _table(rows: list[tuple[str, int, int, dict[str, float], float]]) -> Table:
    table = Table(title="test split, which no decision has seen", box=None, pad_edge=False)
    names = sorted({name for row in rows for name in row[3]})
    table.add_column("arm")
    for heading in ("epochs", "GFLOPs", *names):
        table.add_column(heading, justify="right")
    for arm, epochs, flops, metrics, _ in rows:
        cells = [f"{metrics[name]:.4f}" if name in metrics else "-" for name in names]
        table.add_row(arm, f"{epochs:,}", f"{flops / 1e9:,.1f}", *cells)
    return table
