"""A disk that is full, over its quota or broken amid a run: training takes no notice."""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.reliability.disk_runs import START, Ended, assert_whole_again, left_behind
from tests.reliability.disk_runs import ends as ends
from tests.reliability.disk_trouble import REFUSALS, SHORT, Disk, Operation, Stretch
from tests.reliability.plugin import Faults
from tests.tolaria.plain_loop.test_loop_resume import NUM_EPOCHS
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria.disk.checkpoint import order
from tolaria.disk.store import CheckpointStore

WHOLE: Final = 165
"""About as many operations as a run has."""
COMMIT: Final = ".tmp-step-"
slow = pytest.mark.slow


def troubles(chance: random.Random) -> Sequence[Stretch]:
    """A few stretches, in a third of the cases over before the last checkpoints are due."""
    last = chance.choice((WHOLE, WHOLE, WHOLE // 2))
    codes = (*REFUSALS, SHORT)
    return [Stretch.drawn(chance, START + 1, last, codes) for _ in range(chance.randint(1, 8))]


def assert_told(log: Sequence[Operation], told: str) -> None:
    """Whatever could not be written of a checkpoint, the journal or the report is named."""
    for name, path, _ in (operation for operation in log if operation.is_refused):
        if name in ("remove", "rmdir", "truncate") or "archive" in path.parts:
            continue  # cleaning up, which is done again, or after an error that is told itself
        own = path if path.name.startswith(COMMIT) else path.parent
        if own.name.startswith(COMMIT):
            is_retired = (name, own.parent.name) == ("rename", "active")
            assert is_retired or own.name.removeprefix(".tmp-") in told
        elif path.name in ("journal.bin", ".report.html.tmp", "seeds.bin"):
            assert path.name.strip(".").removesuffix(".tmp") in told, f"{name} {path} was refused"


def assert_checkpoints_went_on(run_dir: Path, log: Sequence[Operation]) -> bool:
    """If the trouble was over before the last commit began, that one is there; whether it was."""
    begun = [number for number, each in enumerate(log) if _begins_commit(each)]
    if not begun or any(operation.is_refused for operation in log[begun[-1] :]):
        return False
    step = int(log[begun[-1]].path.name.removeprefix(COMMIT))
    newest = CheckpointStore(run_dir / "checkpoints", read_only=True).newest_valid()
    assert newest is not None
    assert order(newest)[0] == step
    return True


def _begins_commit(operation: Operation) -> bool:
    return operation.name == "mkdir" and operation.path.name.startswith(COMMIT)


def undeletable(log: Sequence[Operation]) -> Iterator[Path]:
    """What the disk refused to delete when it was last asked to."""
    last = {o.path: o for o in log if o.name in ("remove", "rmdir")}
    for path, operation in last.items():
        if operation.is_refused:
            yield from (path, path.parent)


@pytest.mark.fault(5)
@pytest.mark.parametrize(
    ("num_runs", "least", "least_over"), [(3, 3, 0), pytest.param(45, 110, 5, marks=slow)]
)
def test_trouble_with_the_disk_amid_a_run_costs_nothing(
    tmp_path: Path,
    ends: Mapping[int, Ended],
    caplog: pytest.LogCaptureFixture,
    faults: Faults,
    num_runs: int,
    least: int,
    least_over: int,
) -> None:
    """Whatever operations the disk refuses, once or for a while, the run comes to its end with the
    weights, moments, rates, random streams and decisions of the undisturbed one. What was lost is
    named; nothing is left behind but what the disk would not delete; once it is well again
    checkpoints are written; and a resume from what is there ends the same."""
    num_strikes = num_over = 0
    for number in range(num_runs):
        caplog.clear()
        run_dir, disk = tmp_path / str(number), Disk(*troubles(faults.random))
        with disk.in_use():
            end = Ended(run_dir, async_checkpoints=number % 2 == 0)
        assert end.is_as(ends[NUM_EPOCHS])
        assert_told(disk.log, "\n".join([*end.told, *caplog.messages]))
        assert set(left_behind(run_dir)) <= set(undeletable(disk.log))
        num_over += assert_checkpoints_went_on(run_dir, disk.log)
        assert_whole_again(run_dir, ends[NUM_EPOCHS], disk)
        num_strikes += disk.num_strikes
    assert num_strikes >= least
    assert num_over >= least_over
    faults.injected(num_strikes)


@slow
@pytest.mark.fault(5)
def test_a_disk_that_recovers_after_the_first_saves_failed_does_not_bar_the_run(
    tmp_path: Path, ends: Mapping[int, Ended], faults: Faults
) -> None:
    """Broken from the first event on for any length of time, so that neither the first checkpoints
    nor what tells of their failure is written: the run ends as the undisturbed one, and a resume,
    where there is no checkpoint from the beginning, does too."""
    for length in range(10, WHOLE, 10):
        run_dir, disk = tmp_path / str(length), Disk(Stretch(START + 1, length, errno.EIO))
        with disk.in_use():
            assert Ended(run_dir, async_checkpoints=False).is_as(ends[NUM_EPOCHS])
        assert_whole_again(run_dir, ends[NUM_EPOCHS], disk)
        faults.injected()
