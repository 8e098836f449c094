"""The controller: a decision."""

from __future__ import annotations

import time
from typing import Any

import pytest

from bench.decide import RACED, boundary
from tamiyo import Controller, HeuristicPolicy


@pytest.mark.benchmark(group="decide")
@pytest.mark.parametrize("num_dormant", [0, 10_000])
def test_a_race_is_judged(benchmark: Any, num_dormant: int) -> None:
    packet, schema = boundary(num_dormant, **RACED)

    def decide() -> bool:
        controller = Controller(HeuristicPolicy(), time.monotonic, deadline_ms=60_000.0)
        return controller.decide(packet, schema).late

    assert not benchmark(decide)
