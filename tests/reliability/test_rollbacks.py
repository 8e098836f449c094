"""Any sequence of rollbacks, among everything else that a run does."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.reliability.grown_loops import Gardener, GrownLoop
from tests.reliability.plugin import Faults
from tests.reliability.rollback_machine import Rollbacks
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria.disk.files import FileOps


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No waiting for a disk that loses nothing here; and as schedulers are looked for among all
    objects that the collector knows, it is to know few."""
    monkeypatch.setattr(FileOps, "fsync", lambda *_: None)
    with GrownLoop(tmp_path / "first", Gardener()).run:  # what is imported late is there now
        gc.collect()
        gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.fault(20)
@pytest.mark.parametrize(
    ("least", "part"),
    [(8, 0), *(pytest.param(100, part, marks=pytest.mark.slow) for part in range(1, 4))],
)
def test_whatever_was_undone_leaves_no_trace(
    least: int, part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: Faults
) -> None:
    """However runs are broken, at a loss, a gradient, weights, a metric, by request, in guarded
    steps or not, again and again, with memory lost or not, over births, grafts, culls and fossils,
    with resumes between: each is in the state that the rules name, bit for bit, less the seeds that
    are blamed, and says so; at the third time that there is none to blame it stops, and names the
    place; and its end is that of a run in which what was undone never happened."""
    assert part in range(4)  # the parts differ in what they draw, by their names
    monkeypatch.setattr(Rollbacks, "folder", tmp_path, raising=False)
    monkeypatch.setattr(Rollbacks, "patch", monkeypatch, raising=False)
    monkeypatch.setattr(Rollbacks, "num_survived", 0)
    some = settings(
        max_examples=3,
        stateful_step_count=10,
        deadline=None,
        database=None,
        # Shrinking would outlast a test's time; the seed brings a failure back.
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    while Rollbacks.num_survived < least:
        run_state_machine_as_test(seed(faults.random.getrandbits(32))(Rollbacks), settings=some)
    faults.injected(Rollbacks.num_survived)
