"""Blueprints that take more memory than there is: the run is the one in which their seed goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.reliability import starved_runs
from tests.reliability.hungry import RAISED, registered
from tests.reliability.plugin import Faults
from tests.reliability.starved_runs import STRIKES, Run
from tests.tolaria.plain_loops import one_thread as one_thread

ROOT: Final = Path(__file__).parents[2]
slow = pytest.mark.slow


@pytest.mark.fault(12)
@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("grafted, forward", "MemoryError"),
        ("grafted, backward", "OutOfMemoryError"),
        pytest.param("grafted, forward", "OutOfMemoryError", marks=slow),
        pytest.param("grafted, backward", "MemoryError", marks=slow),
    ],
)
def test_a_raised_lack_of_memory_costs_the_seed_alone(
    tmp_path: Path, where: str, error: str, faults: Faults
) -> None:
    """Losses, host, moments and random streams end as in the run in which the seed is taken out
    in that very step, and one event says why."""
    with registered():
        end = Run(STRIKES[where], RAISED[error]).train(tmp_path / "run")
        assert end.is_as(Run(STRIKES[where], None).train(tmp_path / "twin"))
    in_backward = "in backward: " if "backward" in where else ""
    assert end.told == [("seed conv/0", f"{in_backward}{error}: out of memory")]
    faults.injected()


@slow
@pytest.mark.timeout(240)
@pytest.mark.fault(12)
def test_no_memory_costs_the_seed_alone(tmp_path: Path, faults: Faults) -> None:
    """Where memory really ends, at a birth, in a proof, a trial or a graft, all at once or page by
    page, and though the body keeps it: the run ends as the one in which the seed goes there, one
    event says what happened, and the memory is there again."""
    done = subprocess.run(
        [sys.executable, starved_runs.__file__, str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=230,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert len(found) == 2 * len(STRIKES)
    for case, (is_same, told, before_bytes, after_bytes) in found.items():
        assert is_same, case
        [(where, what)] = told
        assert "conv" in where, case
        assert "MemoryError" in what or "can't allocate memory" in what, case
        assert after_bytes < 1.01 * before_bytes, case
    faults.injected(len(found))
