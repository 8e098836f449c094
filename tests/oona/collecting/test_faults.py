"""The collector through servers and trainers that are killed: the trail is whole in the end."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import leyline
from oona import Bus
from oona.audit import find_gaps
from oona.collecting import start_child
from tests.oona.collecting.runs import ENDED, kept
from tests.oona.faults.place import Place

FAULT = leyline.Fault(epoch=1, step=1, where="here", what="broken", action="mended")
Spawn = Callable[..., "subprocess.Popen[bytes]"]


@pytest.mark.slow
def test_a_server_that_is_killed_twenty_times(tmp_path: Path) -> None:
    """A collector beside a run whose server is SIGKILLed and comes back empty: every event, so
    every fault, is in the trail, soundly chained, and the collector ends well."""
    place = Place(tmp_path)
    run_dir = tmp_path / "run"
    with Bus.open(run_dir, "run", place.url) as bus:
        child = start_child(run_dir)
        for number in range(20):
            for step in range(250):
                event = FAULT if step % 10 == 0 else leyline.StepMetrics(step=step, loss=0.5)
                assert bus.offer(event)
            bus.flush(0.05 * (number % 3))
            place.kill()
            place.start()
        bus.offer(ENDED)
    assert child.wait(30.0) is None, (run_dir / "audit.log").read_text()
    place.kill()
    assert kept(run_dir / "audit.db") == list(range(1, 5002))
    assert find_gaps(run_dir / "audit.db") == []


TRAINER = """
import sys
from pathlib import Path
import leyline
from oona import Bus
from oona.collecting import start_child
run_dir = Path(sys.argv[1])
bus = Bus.open(run_dir, "run", "embedded")
print(start_child(run_dir).pid, flush=True)
for number in range(1, 1_000_000):
    assert bus.offer(leyline.StepMetrics(step=number, loss=1.0))
    if number % 10 == 0:
        print(number, flush=True)
"""


@pytest.mark.slow
def test_trainers_killed_at_random_points(
    tmp_path: Path, spawn: Spawn, wait_for_end: Callable[[int], bool]
) -> None:
    """kill -9 at ten random moments, each time in a directory of its own, from the collector's
    start on: what was offered before is in the trail, without a hole."""
    chance = random.Random(3)  # noqa: S311 -- when to kill
    for number in range(10):
        run_dir = tmp_path / str(number)
        trainer = spawn(TRAINER, str(run_dir))
        assert trainer.stdout is not None
        pid, offered = int(trainer.stdout.readline()), 0
        for _ in range(chance.choice((0, 1, 30, 1000))):
            offered = int(trainer.stdout.readline())
        trainer.kill()
        trainer.wait(10)
        assert wait_for_end(pid)
        found = kept(run_dir / "audit.db")
        assert found == list(range(1, len(found) + 1))
        assert len(found) >= offered
