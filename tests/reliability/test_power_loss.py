"""Power cut at any moment: what comes back is the old checkpoint or the new one, and the run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from tests.reliability.plugin import Faults
from tests.reliability.power import Disk, write_out
from tests.tolaria.disk.test_checkpoint import CASES, is_state, state_of, store_of
from tolaria.disk.checkpoint import load, order
from tolaria.disk.files import FileOps
from tolaria.disk.manifest import read_manifest
from tolaria.disk.run import RunDirectory
from tolaria.disk.store import CheckpointStore

MOST_STATES: Final = 32
"""Of those that may be there at one moment."""
ARCHIVED: Final = 11


class Unsynced(FileOps):
    """Does not wait for the real disk, which is not the one that loses power here."""

    def fsync(self, path: Path) -> None:
        """Do nothing."""


@pytest.mark.slow
@pytest.mark.fault(3)
@pytest.mark.parametrize("case", CASES)
def test_the_old_or_the_new_comes_back(tmp_path: Path, case: str, faults: Faults) -> None:
    """In whatever state a commit may leave the disk at any moment: a whole checkpoint is found,
    the one before until the commit has returned, the new one from then on; one that is worth
    keeping is there in one place or the other; and the next commit works."""
    committed, step, keep = CASES[case]
    store_of(tmp_path / "run", *committed, keep=keep, ops=Unsynced())
    seen: set[str] = set()

    def look(*, is_over: bool = False) -> None:
        for place in _left(disk, tmp_path, faults):
            seen.add(_what_is_left(place, committed, step, is_over=is_over))

    disk = Disk(tmp_path / "run", look)
    store = store_of(tmp_path / "run", keep=keep, ops=disk)
    store.commit(step, state_of(step + 100))
    look(is_over=True)
    assert seen == {"old" if committed else "none", "new"}


@pytest.mark.fault(3)
def test_a_future_that_was_undone_stays_so(tmp_path: Path, faults: Faults) -> None:
    """At any moment the checkpoints that are left to resume from are the first ones, none is lost,
    and once the call has returned the wanted one is the newest."""
    root = tmp_path / "run"
    store_of(root, 1, 2, 3, 4, keep=4, ops=Unsynced())
    left: list[int] = []

    def look() -> None:
        left.clear()
        for place in _left(disk, tmp_path, faults):
            found = CheckpointStore(place / "checkpoints", read_only=True)
            steps = [order(path)[0] for path in found.paths()]
            assert steps == [1, 2, 3, 4][: len(steps)]
            assert len(list(place.rglob("manifest.json"))) == 4
            left.append(len(steps))

    disk = Disk(root, look)
    store = CheckpointStore(root / "checkpoints", ops=disk)
    assert len(store.undo_after(store.active / "step-00000002")) == 2
    look()
    assert set(left) == {2}


@pytest.mark.fault(3)
@pytest.mark.parametrize("name", [None, "mine/first"])
def test_a_run_that_was_made_is_there(tmp_path: Path, name: str | None, faults: Faults) -> None:
    """Wherever it is made, once it has been it is found again, directories above it and all."""
    root = tmp_path / "home"
    root.mkdir()
    disk = Disk(root, lambda: None)
    now = datetime(2026, 11, 22, tzinfo=UTC)
    path = None if name is None else root / name
    with RunDirectory.create(path, parent=root / "runs", now=now, ops=disk) as run:
        for place in _left(disk, tmp_path, faults):
            found = RunDirectory.open(place / run.path.relative_to(root), lock=False)
            assert found.run_id == run.run_id


def _left(disk: Disk, folder: Path, faults: Faults) -> Iterator[Path]:
    """What may be there if power is cut now, one state after the other, on the real disk."""
    for tree in disk.states(faults.random, MOST_STATES):
        place = folder / "lost"
        write_out(tree, place)
        yield place
        shutil.rmtree(place)
        faults.injected()


def _what_is_left(place: Path, committed: Any, step: int, *, is_over: bool) -> str:
    """Open the run anew, as a start after the loss of power does."""
    store = CheckpointStore(place / "checkpoints", ops=Unsynced())
    path = store.newest_valid()
    if ARCHIVED in committed:
        sound = [p for p in store.paths() if p.name not in store.problems]
        assert ARCHIVED in {read_manifest(p).step for p in sound}
    if path is None:
        assert not committed
        assert not is_over
        return "none"
    state = load(path)
    is_new = is_state(state, step + 100)
    assert is_new or is_state(state, committed[-1]), path
    assert is_new or not is_over
    store.commit(step + 1, state_of(step + 1))
    return "new" if is_new else "old"
