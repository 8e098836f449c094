"""What a boundary costs beside its limits, and what a dormant callback costs beside an empty one.

Run it: python -m bench.boundary
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from rich.console import Console
from rich.table import Table

from leyline import limits
from tolaria import EsperCallback
from tolaria.commands.train import QUIET_TRAINER, quiet_lightning
from tolaria.data import load

_NUM_PAIRS = 7
_NUM_EPOCHS = 16


class _Empty(pl.Callback):
    """What any callback costs."""

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        pass


def boundary_parts(console: Console) -> None:
    """Boundaries of one default digits run, without the bus."""
    with tempfile.TemporaryDirectory() as folder:
        callback = EsperCallback(run_dir=str(Path(folder) / "run"), telemetry="off")
        task = load("digits", rng_seed=0)
        trainer = pl.Trainer(max_epochs=task.num_epochs, callbacks=[callback], **QUIET_TRAINER)
        trainer.fit(task.module, task.data)
        boundaries = callback.report()["boundaries"]
    table = Table(title=f"{len(boundaries)} boundaries of the default run, ms", box=None)
    for heading in ("part", "p50", "p95", "limit", "limit / p95"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    parts = {
        "gather": limits.GATHER_MS,
        "decide": limits.DECIDE_MS,
        "apply": limits.APPLY_MS,
        "total": limits.BOUNDARY_MS,
    }
    for part, limit_ms in parts.items():
        values = sorted(boundary[f"{part}_ms"] for boundary in boundaries)
        p50, p95 = statistics.median(values), values[int(0.95 * (len(values) - 1) + 0.5)]
        table.add_row(part, f"{p50:.2f}", f"{p95:.2f}", f"{limit_ms:g}", f"{limit_ms / p95:.0f}x")
    console.print(table)


def _epochs_s(callbacks: list[Any]) -> float:
    task = load("digits", rng_seed=0, num_epochs=_NUM_EPOCHS)
    trainer = pl.Trainer(max_epochs=_NUM_EPOCHS, callbacks=callbacks, **QUIET_TRAINER)
    start_s = time.perf_counter()
    trainer.fit(task.module, task.data)
    return time.perf_counter() - start_s


def dormant_cost(console: Console) -> None:
    """Fit time with Esper holding against one empty callback, in interleaved pairs."""

    def esper(folder: Path) -> list[Any]:
        settings = {"policy": "hold", "telemetry": "off", "checkpoint": False}
        return [EsperCallback(run_dir=str(folder), **settings)]

    ratios, same = [], []
    with tempfile.TemporaryDirectory() as folder:
        _epochs_s([_Empty()])
        for pair in range(_NUM_PAIRS):
            empty_s, again_s = _epochs_s([_Empty()]), _epochs_s([_Empty()])
            esper_s = _epochs_s(esper(Path(folder) / str(pair)))
            ratios.append(esper_s / again_s)
            same.append(empty_s / again_s)
    console.print(
        f"fit with Esper dormant / fit with one empty callback: {statistics.median(ratios):.3f} "
        f"(same thing twice: {statistics.median(same):.3f}, {min(same):.3f} to {max(same):.3f}); "
        f"median of {_NUM_PAIRS} interleaved pairs of {_NUM_EPOCHS} epochs"
    )


def main() -> None:
    quiet_lightning()
    torch.set_num_threads(1)
    console = Console(highlight=False)
    boundary_parts(console)
    dormant_cost(console)


if __name__ == "__main__":
    main()
