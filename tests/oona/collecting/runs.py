"""Runs as a trainer leaves them on a server and in a directory."""

from __future__ import annotations

from pathlib import Path

import leyline
from oona import Bus
from oona.audit import AuditTrail, read_trail, verify_trail

STARTED = leyline.RunStarted(
    run_id="run", epoch=0, num_epochs=2, host_parameters=5, model="M", resumed=False
)
ENDED = leyline.RunEnded(run_id="run", epoch=2, status="finished", parameters=5, metrics={})


def offer_run(bus: Bus, num_steps: int, *, ends: bool = True) -> int:
    """Offer a run of so many steps; how many events that are."""
    assert bus.offer(STARTED)
    for step in range(1, num_steps + 1):
        assert bus.offer(leyline.StepMetrics(step=step, loss=1.0))
    if ends:
        assert bus.offer(ENDED)
    return num_steps + 1 + ends


def kept(path: Path) -> list[int]:
    """The sequences in a trail, which is sound; none if there is no trail yet."""
    if not path.with_suffix(".head").exists():
        return []
    assert verify_trail(path) == []
    return [envelope.sequence for envelope in read_trail(path)]


def limit_pages(trail: AuditTrail, num_pages: int) -> None:
    """Let a trail's file grow no further, as on a full disk."""
    trail._connection.execute(f"PRAGMA max_page_count={num_pages}")
