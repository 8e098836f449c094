"""Kill -9 of the trainer at random moments."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import oona
from tests.oona.test_bus import NOWHERE, assert_exact

NUM_KILLS = 50

TRAINER = """
import os, pathlib, sys
import leyline, oona
bus = oona.Bus.open(
    pathlib.Path(sys.argv[1]), "run", sys.argv[2], publisher=sys.argv[3], ring_size_bytes=65536
)
for step in range(1, 1_000_000):
    bus.offer(leyline.StepMetrics(step=step, loss=0.5))
    if step % 50 == 0:
        bus.offer(leyline.Fault(epoch=1, step=step, where="test", what="", action=""))
        os.write(1, b".")
"""


@pytest.mark.slow
def test_fifty_kills_in_one_run(
    tmp_path: Path, oona_url: str, spawn: Callable[..., subprocess.Popen[bytes]]
) -> None:
    """One run killed fifty times, its server there or not: the ledger has every event offered."""
    draw = random.Random(20)  # noqa: S311 -- which moments, not a secret
    num_reported = 0
    for number in range(NUM_KILLS):
        url = oona_url if number % 3 else NOWHERE
        trainer = spawn(TRAINER, str(tmp_path), url, "process" if number % 5 == 1 else "thread")
        assert trainer.stdout is not None
        for _ in range(draw.randint(1, 60)):
            num_reported += len(os.read(trainer.stdout.fileno(), 1))
        trainer.kill()
        trainer.wait()
        num_reported += len(trainer.stdout.read())
        ledger = oona.ledger(tmp_path)
        assert ledger.offered == ledger.delivered + ledger.dropped + ledger.queued
        least = num_reported * 51
        most = least + (number + 1) * 51
        assert least <= ledger.offered <= most + ledger.dropped_by_type.get("DropsCounted", 0) + 60
    with oona.Bus.open(tmp_path, "run", oona_url) as bus:
        assert bus.flush(20.0)
        statistics = bus.statistics()
        assert_exact(statistics)
        assert statistics.queued == 0
        sequences = [envelope.sequence for envelope in oona.read(oona_url)]
    assert len(sequences) == len(set(sequences)) == statistics.delivered
    assert "Fault" not in statistics.dropped_by_type
