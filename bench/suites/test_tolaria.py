"""The orchestrator: what a step and a boundary cost a hand-written loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.towers import attached


@pytest.mark.benchmark(group="step")
@pytest.mark.parametrize("telemetry", ["off", "memory"])
def test_after_step(benchmark: Any, telemetry: str) -> None:
    with attached(telemetry=telemetry, policy="hold") as esper:
        benchmark(esper.after_step, torch.tensor(0.5))


@pytest.mark.benchmark(group="boundary")
def test_boundary(benchmark: Any) -> None:
    with attached(telemetry="off", policy="hold") as esper:
        esper.after_step(0.5)
        report = benchmark(esper.epoch_boundary, {"val_loss": 1.0})
    assert report.total_ms >= 0.0
