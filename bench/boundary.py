"""What a boundary costs beside its limits.

Boundaries of many seeds are timed in CPU time of the training thread, which other work on the
machine does not change; those of the default run as they were felt.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import lightning.pytorch as pl
import torch
from torch import nn
from torch.nn import functional

from bench.harness import Effort, Peer, Quantiles, Row, Target
from bench.towers import WIDTH, attached
from leyline import limits
from tolaria import EsperCallback
from tolaria.commands.quiet import QUIET_TRAINER, quiet_lightning
from tolaria.data import load

TITLE = "Boundaries"
_NUM_ACTIVE: Final = 32
_NUM_DORMANT: Final = (10_000, 100_000)
_NUM_RUNS: Final = 15
_NUM_BOUNDARIES: Final = 30
_GRAFTS_AT_ONCE: Final = 4
_WHOLE_MS: Final = Target(1.0, 2.0, 5.0)
_PARTS: Final = {
    "gather": limits.GATHER_MS,
    "decide": limits.DECIDE_MS,
    "apply": limits.APPLY_MS,
    "total": limits.BOUNDARY_MS,
}

Boundaries = Sequence[dict[str, float]]


def rows(effort: Effort) -> Iterator[Row]:
    """Active seeds, many dormant ones (fewer of them in a quick look), all grafted at once, and the
    default run."""
    quiet_lightning()
    yield from _part_rows("32-active", f"{_NUM_ACTIVE} active seeds", _active_seeds(effort))
    for num_dormant in _NUM_DORMANT[:1] if effort.is_quick else _NUM_DORMANT:
        found = _dormant_seeds(effort, num_dormant)
        yield _row(f"{num_dormant}-dormant", f"{num_dormant:,} dormant seeds", found, "total")
    yield _all_at_once(effort)
    yield from _part_rows("default", "default run", _default_run(effort))


def _part_rows(name: str, claim: str, boundaries: Boundaries) -> Iterator[Row]:
    for part in _PARTS:
        yield _row(name, claim, boundaries, part, _WHOLE_MS if part == "total" else None)


def _row(
    name: str, claim: str, boundaries: Boundaries, part: str, target: Target | None = None
) -> Row:
    ours = Quantiles.of([boundary[f"{part}_ms"] for boundary in boundaries])
    limit_ms = _PARTS[part]
    assert ours.p95 is not None
    return Row(
        id=f"boundary/{name}/{part}",
        claim=f"{claim}: {part}",
        unit="ms",
        ours=ours,
        target=target or Target(p95=limit_ms),
        peer=Peer("the limit", ours.p95 / limit_ms, limit_ms, most=1.0),
        note=f"{len(boundaries)} boundaries",
    )


def _boundaries(num_runs: int, at_once: int, **settings: Any) -> list[dict[str, float]]:
    """Boundaries of runs in which so many seeds at a time are born, grafted and settle."""
    schedule = [(1 + n // at_once, f"layers.{n}", "low_rank") for n in range(_NUM_ACTIVE)]
    found: list[dict[str, float]] = []
    for _ in range(num_runs):
        with attached(policy="schedule", schedule=schedule, telemetry="off", **settings) as esper:
            esper.clock_s = time.thread_time
            while esper.epoch < _NUM_BOUNDARIES:
                esper.after_step(1.0 / (esper.step + 1))
                esper.epoch_boundary({"val_loss": 1.0})
            assert len(esper.executor.live_seeds()) == _NUM_ACTIVE
            found += esper.report()["boundaries"]
    return found


def _active_seeds(effort: Effort) -> Boundaries:
    """Four grafts at a boundary, each after its trial, until there are 32; then those settle."""
    torch.manual_seed(0)
    batch = torch.randn(4, WIDTH), torch.randn(4, WIDTH)
    trials = {"loss_fn": _loss, "data": ([batch], [batch]), "trial_steps": [1], "veto": False}
    found = _boundaries(effort.num(_NUM_RUNS), _GRAFTS_AT_ONCE, **trials)
    all_live = 1 + _NUM_ACTIVE // _GRAFTS_AT_ONCE
    return [boundary for boundary in found if boundary["epoch"] > all_live]


def _loss(model: nn.Module, batch: Any) -> torch.Tensor:
    return functional.mse_loss(model(batch[0]), batch[1])


def _dormant_seeds(effort: Effort, num_seeds: int) -> Boundaries:
    """The default policy over a table of that many seeds, none of which is alive."""
    with attached(telemetry="off") as esper:
        esper.after_step(1.0)
        esper.epoch_boundary({"val_loss": 1.0})
        sites = esper.executor.grounds.sites
        for number in range(num_seeds):
            at = number % len(sites)
            esper.executor.table.add(f"{sites[at].name}/{number // len(sites) + 1}", site=at)
        esper.clock_s = time.thread_time
        for _ in range(effort.num(4 * _NUM_BOUNDARIES)):
            esper.after_step(1.0 / (esper.step + 1))
            esper.epoch_boundary({"val_loss": 1.0})
        boundaries: Boundaries = esper.report()["boundaries"]
    return boundaries[1:]


def _all_at_once(effort: Effort) -> Row:
    """The worst boundary: all are grafted at one, and without trials each is built there."""
    found = _boundaries(effort.num(_NUM_RUNS), _NUM_ACTIVE)
    born = [boundary for boundary in found if boundary["epoch"] == 2]
    return _row("32-at-once", f"{_NUM_ACTIVE} seeds built and grafted at one", born, "total")


def _default_run(effort: Effort) -> Boundaries:
    with tempfile.TemporaryDirectory() as folder:
        callback = EsperCallback(run_dir=str(Path(folder) / "run"), telemetry="off")
        task = load("digits", rng_seed=0)
        num_epochs = task.num_epochs // 2 if effort.is_quick else task.num_epochs
        trainer = pl.Trainer(max_epochs=num_epochs, callbacks=[callback], **QUIET_TRAINER)
        trainer.fit(task.module, task.data)
        boundaries: Boundaries = callback.report()["boundaries"]
    return boundaries
