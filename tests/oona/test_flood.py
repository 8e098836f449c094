"""A flood of events."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import leyline
import oona
from oona.metrics.operations import resident_size_bytes
from tests.oona.test_bus import NOWHERE, STEP, assert_exact, fault
from tests.reliability.plugin import Faults


@pytest.mark.slow
@pytest.mark.fault(9)
@pytest.mark.parametrize(
    ("is_away", "flood_s", "large_every"),
    [(True, 10.0, 10**9), (False, 60.0, 10**9), (False, 15.0, 20)],
    ids=["server away", "server there", "large ones too"],
)
def test_memory_is_flat_under_a_flood(
    tmp_path: Path, oona_url: str, is_away: bool, flood_s: float, large_every: int, faults: Faults
) -> None:
    """Offers as fast as they go, a hundred times a busy run's: memory stays, the ledger is exact.

    The embedded server's own limit bounds what it keeps; nothing but metrics is dropped, unless the
    faults alone are more than their lane holds.
    """
    with oona.Bus.open(tmp_path, "run", NOWHERE if is_away else oona_url) as bus:
        large = leyline.Fault(epoch=1, step=1, where="", what="x" * (1 << 20), action="")
        deadline = time.monotonic() + flood_s
        settled_bytes, num_rounds = None, 0
        while time.monotonic() < deadline:
            for _ in range(2000):
                bus.offer(STEP)
            num_rounds += 1
            if num_rounds % 100 == 0:
                bus.offer(fault(num_rounds))
            if num_rounds % large_every == 0:
                bus.offer(large)
            if num_rounds == 100:  # both lanes have been full, and buffers have their size
                bus.offer(large)
                settled_bytes = resident_size_bytes()
        statistics = bus.statistics()
        assert_exact(statistics)
        assert statistics.offered > (1_000_000 if large_every > num_rounds else 200_000)
        # A lane of its own can be full too, of faults of a megabyte each.
        may_go = {"StepMetrics"} if large_every > num_rounds else {"StepMetrics", "Fault"}
        assert set(statistics.dropped_by_type) <= may_go
        grown_bytes = (resident_size_bytes() or 0) - (settled_bytes or 0)
        assert grown_bytes < 16 << 20
    faults.injected()
