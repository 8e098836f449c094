"""What a boundary costs beside its limits, and what a hand-written loop pays for each step.

The boundaries of many seeds are timed in CPU time of the training thread, which other work on the
machine does not change; those of the default run as they were felt.

Run it: python -m bench boundary
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn
from torch.nn import functional

from bench.pairs import Row, compare
from leyline import limits
from tolaria import EsperCallback, Orchestrator
from tolaria.commands.quiet import QUIET_TRAINER, quiet_lightning
from tolaria.data import load
from tolaria.show.latency import percentile

TITLE = "boundaries and steps"
_NUM_SEEDS = 32
_NUM_RUNS = 15
_NUM_BOUNDARIES = 30
_GRAFTS_AT_ONCE = 4
_WIDTH = 64
_STEP_US = 1000.0
_GOALS_MS = (1.0, 2.0, 5.0)
"""p50, p95 and p99 of the sum."""
_PARTS = {
    "gather": limits.GATHER_MS,
    "decide": limits.DECIDE_MS,
    "apply": limits.APPLY_MS,
    "total": limits.BOUNDARY_MS,
}


class _Tower(nn.Module):
    """As many sites as there are seeds."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(_WIDTH, _WIDTH) for _ in range(_NUM_SEEDS))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            inputs = inputs + torch.tanh(layer(inputs))
        return inputs


@contextmanager
def _attached(**settings: Any) -> Iterator[Orchestrator]:
    model = _Tower()
    optimizer = torch.optim.AdamW(model.parameters())
    example = torch.zeros(4, _WIDTH)
    with tempfile.TemporaryDirectory() as folder:
        run_dir = str(Path(folder) / "run")
        defaults: dict[str, Any] = {"run_dir": run_dir, "checkpoint": False, "num_epochs": 1000}
        with Orchestrator.attach(model, optimizer, example=example, **defaults | settings) as esper:
            yield esper


def _boundaries(at_once: int, **settings: Any) -> list[dict[str, float]]:
    """Boundaries of runs in which so many seeds at a time are born, grafted and settle."""
    schedule = [(1 + n // at_once, f"layers.{n}", "low_rank") for n in range(_NUM_SEEDS)]
    found: list[dict[str, float]] = []
    for _ in range(_NUM_RUNS):
        with _attached(policy="schedule", schedule=schedule, telemetry="off", **settings) as esper:
            esper.clock_s = time.thread_time
            while esper.epoch < _NUM_BOUNDARIES:
                esper.after_step(1.0 / (esper.step + 1))
                esper.epoch_boundary({"val_loss": 1.0})
            assert len(esper.executor.live_seeds()) == _NUM_SEEDS
            found += esper.report()["boundaries"]
    return found


def _active_seeds() -> list[Row]:
    """Four grafts at a boundary, each after its trial, until there are 32; then those settle."""
    torch.manual_seed(0)
    batch = torch.randn(4, _WIDTH), torch.randn(4, _WIDTH)
    trials = {"loss_fn": _loss, "data": ([batch], [batch]), "trial_steps": [1], "veto": False}
    boundaries = _boundaries(_GRAFTS_AT_ONCE, **trials)
    all_live = 1 + _NUM_SEEDS // _GRAFTS_AT_ONCE
    active = [boundary for boundary in boundaries if boundary["epoch"] > all_live]
    return _part_rows(f"{_NUM_SEEDS} active seeds", active)


def _loss(model: nn.Module, batch: Any) -> torch.Tensor:
    return functional.mse_loss(model(batch[0]), batch[1])


def _all_at_once() -> Row:
    """The worst boundary: all are grafted at one, and without trials each is built there."""
    born = [b["total_ms"] for b in _boundaries(_NUM_SEEDS) if b["epoch"] == 2]
    p95_ms = percentile(born, 95)
    return Row(
        claim=f"{_NUM_SEEDS} seeds built and grafted at one boundary: p95",
        goal=f"<= {limits.BOUNDARY_MS:g} ms",
        found=f"{p95_ms:.2f} ms",
        beside=f"{len(born)} boundaries, {limits.BOUNDARY_MS / p95_ms:.1f}x p95; "
        f"a seed takes {p95_ms / _NUM_SEEDS:.2f} ms",
        met=p95_ms <= limits.BOUNDARY_MS,
    )


def _default_run() -> list[dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        callback = EsperCallback(run_dir=str(Path(folder) / "run"), telemetry="off")
        task = load("digits", rng_seed=0)
        trainer = pl.Trainer(max_epochs=task.num_epochs, callbacks=[callback], **QUIET_TRAINER)
        trainer.fit(task.module, task.data)
        boundaries: list[dict[str, float]] = callback.report()["boundaries"]
    return boundaries


def _part_rows(what: str, boundaries: Sequence[dict[str, float]]) -> list[Row]:
    rows = []
    for part, limit_ms in _PARTS.items():
        values = [boundary[f"{part}_ms"] for boundary in boundaries]
        found = [percentile(values, q) for q in (50, 95, 99)]
        goals = _GOALS_MS if part == "total" else (limit_ms,) * 3
        shown = " / ".join(f"{value:.2f}" for value in found)
        rows.append(
            Row(
                claim=f"{what}: {part}, p50 / p95 / p99",
                goal="<= " + " / ".join(f"{goal:g}" for goal in goals) + " ms",
                found=f"{shown} ms",
                beside=f"{len(values)} boundaries, limit {limit_ms:g} ms, "
                f"{limit_ms / found[1]:.0f}x p95",
                met=all(value <= goal for value, goal in zip(found, goals, strict=True)),
            )
        )
    return rows


def _step_row(claim: str, **settings: Any) -> Row:
    loss = torch.tensor(0.5)
    with _attached(**settings) as esper:
        esper.after_step(loss)
        esper.epoch_boundary({"val_loss": 1.0})
        found = compare(lambda: esper.after_step(loss), lambda: loss.item(), repeats=200)
    share = found.ours_us / _STEP_US
    return Row(
        claim=claim,
        goal="<= 2 % of a step of 1 ms",
        found=f"{found.ours_us:.1f} us, {100 * share:.1f} %",
        beside=f"loss.item() {found.peer_us:.2f} us, {found.ratio:.0f}x; "
        f"same twice {found.same[0]:.2f} to {found.same[1]:.2f}",
        met=share <= 0.02,
    )


def rows() -> list[Row]:
    """Boundaries of two runs, and steps of two loops."""
    quiet_lightning()
    return [
        *_active_seeds(),
        _all_at_once(),
        *_part_rows("default run", _default_run()),
        _step_row("step of a hand-written loop, nothing grown"),
        _step_row("the same, telemetry off", telemetry="off"),
    ]
