"""How long it takes until training goes on, after a rollback and after a kill."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import torch

from bench.harness import Effort, Quantiles, Row, Target
from bench.towers import Tower
from tolaria import Orchestrator

TITLE = "Until training goes on"
_ROLLBACK_MS: Final = 500.0
_RESUME_MS: Final = 3_000.0
_WIDE: Final = 1_024
"""Of the host: 32 layers, so 34 million parameters, with their moments 400 MB."""
_NUM_TIMES: Final = 15


def rows(effort: Effort) -> Iterator[Row]:
    """Of a host of 34 million parameters and AdamW, with a checkpoint."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        back_ms = _rollbacks_ms(run_dir, effort.num(_NUM_TIMES))
        yield _row("rollback", "a rollback, from memory", back_ms, Target(p95=_ROLLBACK_MS))
        again_ms = [_resume_ms(run_dir) for _ in range(effort.num(_NUM_TIMES))]
        claim = "a resume, from attach to the first step"
        yield _row("resume", claim, again_ms, Target(p95=_RESUME_MS))


def _row(name: str, claim: str, times_ms: list[float], target: Target) -> Row:
    ours = Quantiles.of(times_ms)
    return Row(id=f"recovery/{name}", claim=claim, unit="ms", ours=ours, target=target)


def _rollbacks_ms(run_dir: Path, num_times: int) -> list[float]:
    found = []
    with _attached(run_dir) as esper:
        step = _step_of(esper)
        for _ in range(num_times):
            for _ in range(2):  # three rollbacks in a row would end the run
                step()
                esper.epoch_boundary({"val_loss": 1.0})
            step()
            start_s = time.perf_counter()
            esper.roll_back("to time it")
            found.append((time.perf_counter() - start_s) * 1e3)
    return found


def _resume_ms(run_dir: Path) -> float:
    start_s = time.perf_counter()
    with _attached(run_dir, resume=True) as esper:
        _step_of(esper)()
        return (time.perf_counter() - start_s) * 1e3


def _attached(run_dir: Path, **settings: Any) -> Orchestrator:
    model = Tower(width=_WIDE)
    return Orchestrator.attach(
        model,
        torch.optim.AdamW(model.parameters()),
        example=torch.zeros(4, _WIDE),
        policy="hold",
        run_dir=str(run_dir),
        telemetry="off",
        **settings,
    )


def _step_of(esper: Orchestrator) -> Callable[[], None]:
    inputs = torch.randn(4, _WIDE)

    def step() -> None:
        esper.rates.optimizers[0].zero_grad()
        loss = esper.model(inputs).square().mean()
        torch.autograd.backward(loss)
        esper.rates.optimizers[0].step()
        esper.after_step(loss.detach())

    return step
