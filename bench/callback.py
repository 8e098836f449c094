"""What the callback costs a training step while every seed is dormant, beside an empty callback.

The steps are as short as they come, so that what is around them shows. Timed is the CPU time of the
training thread in them, which other work on the machine does not change.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from bench.harness import Comparison, Effort, Quantiles, Row, band_of
from tolaria import EsperCallback
from tolaria.commands.quiet import QUIET_TRAINER, quiet_lightning

TITLE = "the callback in a training step, us, all seeds dormant"
_NUM_ROUNDS = 11
_NUM_STEPS = 600
_NUM_TIMED = 50
"""Steps that make one timing; of those of a fit the shortest counts."""


class _Empty(pl.Callback):
    """What any callback costs."""


class _Small(pl.LightningModule):
    """A step of two small layers, which takes the time from one of its own hooks to another."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))
        self._start_ns = 0
        self.step_us = math.inf

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return functional.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.001)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx % _NUM_TIMED == 0:
            now_ns = time.thread_time_ns()
            if batch_idx > _NUM_TIMED:
                took_us = (now_ns - self._start_ns) / _NUM_TIMED / 1e3
                self.step_us = min(self.step_us, took_us)
            self._start_ns = now_ns


def _step_us(callbacks: list[Any]) -> float:
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(_NUM_STEPS, 32), torch.randn(_NUM_STEPS, 1))
    model = _Small()
    trainer = pl.Trainer(max_epochs=1, callbacks=callbacks, **QUIET_TRAINER)
    trainer.fit(model, DataLoader(data))
    return model.step_us


def _row(effort: Effort, telemetry: str) -> Row:
    added, empties, same = [], [], []
    settings: dict[str, Any] = {"telemetry": telemetry, "checkpoint": False}
    with tempfile.TemporaryDirectory() as folder:
        _step_us([])
        for number in range(effort.num(_NUM_ROUNDS)):
            before_us, empty_us = _step_us([]), _step_us([_Empty()])
            esper = EsperCallback(run_dir=str(Path(folder) / str(number)), **settings)
            esper_us, after_us = _step_us([esper]), _step_us([])
            bare_us = (before_us + after_us) / 2
            added.append(esper_us - bare_us)
            empties.append(empty_us - bare_us)
            same.append(after_us / before_us)
    added_us, empty_us = statistics.median(added), statistics.median(empties)
    ratio, band = added_us / empty_us, band_of(same)
    found = Comparison(Quantiles.of(added), Quantiles.of(empties), ratio, band)
    return Row.timed(
        f"callback/{telemetry}",
        f"added to a step by EsperCallback, all dormant, bus {telemetry}",
        "us",
        found,
        peer="added by an empty callback",
        most=1.0,
        note="itself: the bare step",
    )


def rows(effort: Effort) -> Iterator[Row]:
    """With the bus off, and with the embedded one."""
    quiet_lightning()
    yield _row(effort, "off")
    yield _row(effort, "embedded")
