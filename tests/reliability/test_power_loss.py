"""Power cut at any moment of a commit: what comes back is the old checkpoint or the new one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

import pytest

from tests.reliability.plugin import Faults
from tests.reliability.power import Disk, write_out
from tests.tolaria.disk.test_checkpoint import CASES, is_state, state_of, store_of
from tolaria.disk.checkpoint import load
from tolaria.disk.files import FileOps
from tolaria.disk.manifest import read_manifest
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
        for tree in disk.states(faults.random, MOST_STATES):
            place = tmp_path / "lost"
            write_out(tree, place)
            seen.add(_what_is_left(place, committed, step, is_over=is_over))
            shutil.rmtree(place)
            faults.injected()

    disk = Disk(tmp_path / "run", look)
    store = store_of(tmp_path / "run", keep=keep, ops=disk)
    store.commit(step, state_of(step + 100))
    look(is_over=True)
    assert seen == {"old" if committed else "none", "new"}


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
