"""Clocks that jump, stop or lie: order comes from steps, so the run is the same run."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.golden.make import digests
from tests.reliability.plugin import Faults
from tests.tolaria.plain_loops import adam, attach, make_host, run
from tests.tolaria.plain_loops import one_thread as one_thread
from tests.tolaria.rollback.loops import GROWN
from tolaria.live_run import LiveRun

HOUR_S: Final = 3600.0
TEN_YEARS_S: Final = 10 * 365 * 24 * HOUR_S
NUM_EPOCHS: Final = 6
JUMPS: Final[dict[str, Callable[[float], float]]] = {
    "an hour on": lambda now: now + HOUR_S,
    "an hour back": lambda now: now - HOUR_S,
    "ten years back": lambda now: now - TEN_YEARS_S,
    "ten years on": lambda now: now + TEN_YEARS_S,
    "stopped": lambda now: 0.0,
    "not a number": lambda now: math.nan,
    "backwards": lambda now: -now,
}
SETTINGS: Final = {**GROWN, "checkpoint": True, "async_checkpoints": False}


class Clock:
    """Every clock of a run; it goes wrong when it is told to."""

    def __init__(self) -> None:
        self.jump: Callable[[float], float] = lambda now: now
        self.num_wrong = 0

    def __call__(self) -> float:
        now = time.monotonic()
        wrong = self.jump(now)
        self.num_wrong += wrong != now
        return wrong


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of every run that is begun."""
    made = Clock()
    monkeypatch.setitem(LiveRun.__init__.__kwdefaults__, "clock_s", made)
    return made


def end_of(
    run_dir: Path, spoil: Callable[[], None] = lambda: None, *, resume_as_of: float = 0.0
) -> Any:
    """The end of a run.

    Args:
        spoil: called after two epochs.
        resume_as_of: it is stopped after four and goes on, all its files being of this time.
    """
    found: list[Any] = []
    for num_epochs in (4, NUM_EPOCHS - 4) if resume_as_of else (NUM_EPOCHS,):
        model = make_host()
        optimizer = adam(model)
        for path in run_dir.rglob("*") if resume_as_of else ():
            os.utime(path, (resume_as_of, resume_as_of))
        with attach(model, optimizer, run_dir, resume=bool(resume_as_of), **SETTINGS) as esper:
            for _ in range(num_epochs):
                (report,) = run(model, optimizer, esper, 1)
                found.append((report.decision.commands, report.decision.late))
                if len(found) == 2:
                    spoil()
            stages = [esper.executor.table.stage(seed) for seed in esper.executor.table.names]
            newest = esper.session.newest_checkpoint()
    assert newest is not None
    return digests(model, optimizer), found, stages, newest.name


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return end_of(tmp_path_factory.mktemp("undisturbed") / "run")


@pytest.mark.fault(16)
@pytest.mark.parametrize("kind", JUMPS)
def test_a_clock_that_goes_wrong_changes_nothing(
    kind: str, undisturbed: Any, clock: Clock, tmp_path: Path, faults: Faults
) -> None:
    """With a seed about to be born, grafted and settled: weights, moments, decisions, stages and
    the newest checkpoint are those of the run whose clock was right."""
    found = end_of(tmp_path / "run", lambda: setattr(clock, "jump", JUMPS[kind]))
    assert found == undisturbed
    assert clock.num_wrong > 20
    faults.injected()


@pytest.mark.fault(16)
@pytest.mark.parametrize("years", [-10, 10])
def test_files_of_another_time_are_gone_on_from(
    years: int, undisturbed: Any, tmp_path: Path, faults: Faults
) -> None:
    """Whatever time the system gives its files, the run goes on from the newest by its number."""
    as_of = time.monotonic() + 40 * 365 * 24 * HOUR_S + years * 365 * 24 * HOUR_S
    assert end_of(tmp_path / "run", resume_as_of=as_of) == undisturbed
    faults.injected()
