"""Whole runs on a disk in trouble: what they come to, and what must be there afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest
import torch

from leyline import Decision, Event, Fault
from tests.reliability.disk_trouble import Disk
from tests.tolaria.plain_loop.test_loop_resume import NUM_EPOCHS, fresh
from tolaria.disk.audit import audit
from tolaria.disk.run import RunDirectory
from tolaria.disk.seed_records import FILE_NAME as SEED_FILE
from tolaria.disk.store import CheckpointStore

START: Final = 17
"""Operations of a new run until its journal is open."""


class Ended:
    """What a run came to: what it holds, and what it decided."""

    def __init__(self, run_dir: Path, num_epochs: int = NUM_EPOCHS, **settings: object):
        heard: list[Event] = []
        end = fresh(run_dir, num_epochs, heard=heard, **settings)
        self.started = end["started"]
        self.state = {name: end[name] for name in ("state", "rates", "streams")}
        self.decided = {e.epoch: (e.cause, e.commands) for e in heard if isinstance(e, Decision)}
        self.told = [event.what for event in heard if isinstance(event, Fault)]

    def is_as(self, whole: Ended) -> bool:
        """Whether it ended as the whole run did, of which it may be the later part."""
        epochs = range(self.started + 1, len(whole.decided) + 1)
        decided = {epoch: whole.decided[epoch] for epoch in epochs}
        return self.state == whole.state and self.decided == decided


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> Mapping[int, Ended]:
    """What an undisturbed run comes to, by its number of epochs."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole")
    return {num: Ended(folder / str(num), num) for num in (1, NUM_EPOCHS)}


def assert_whole_again(run_dir: Path, whole: Ended, disk: Disk) -> None:
    """The same script, run again on a sound disk, ends as if nothing had been."""
    again = Ended(run_dir, len(whole.decided))
    assert again.is_as(whole)
    assert left_behind(run_dir) == []
    store = CheckpointStore(run_dir / "checkpoints", read_only=True)
    newest = store.newest_valid()
    assert newest is not None
    assert not store.problems
    with RunDirectory.open(run_dir, lock=False) as run:
        flawed = [found for found in audit(run) if found.problems]
    if any(o.name == "allocate" and o.is_refused for o in disk.log):
        # The records of a run that had no room for them are not made anew by its resume.
        flawed = [found for found in flawed if found.name != SEED_FILE]
    assert flawed == []


def left_behind(run_dir: Path) -> list[Path]:
    return [path for path in run_dir.rglob("*") if path.name.startswith(".")]
