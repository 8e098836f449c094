"""The bus: an offer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import leyline
import oona
from bench.packets import state_packet


@pytest.mark.benchmark(group="offer")
@pytest.mark.parametrize(
    "event", [leyline.StepMetrics(step=1, loss=0.5), state_packet(32)], ids=["step", "packet"]
)
def test_offer(benchmark: Any, event: leyline.Event, tmp_path: Path) -> None:
    with oona.Bus.open(tmp_path, "run", "memory") as bus:
        benchmark(bus.offer, event)
        counts = bus.statistics()
    assert counts.num_faults == 0
