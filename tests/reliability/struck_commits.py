"""Commits of checkpoints in forks that strace strikes: killed, refused, or only looked at.

Run as a script, it says as JSON how many were struck in each case.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Sequence
from difflib import unified_diff
from itertools import count
from pathlib import Path
from typing import Final

import torch

from leyline import CheckpointError
from tests.reliability.recorded import Recorded
from tests.reliability.strace import Call, calls, ended
from tests.tolaria.disk.test_checkpoint import (
    CASES,
    OCCASIONS,
    FaultyOps,
    holds,
    is_state,
    left_after,
    names,
    state_of,
    store_of,
)
from tolaria.disk.checkpoint import load
from tolaria.disk.files import FileOps

DONE: Final = 0
REFUSED: Final = 7
MKDIR: Final = "mkdir,mkdirat"
OPEN: Final = "open,openat"
WRITE: Final = "write,pwrite64,writev"
SYNC: Final = "fsync,fdatasync"
RENAME: Final = "rename,renameat,renameat2"
UNLINK: Final = "unlink,unlinkat"
RMDIR: Final = "rmdir"
KINDS: Final = {
    MKDIR: ("mkdir",),
    OPEN: ("write", "fsync", "fsync_dir"),
    WRITE: ("write",),
    SYNC: ("fsync", "fsync_dir"),
    RENAME: ("rename",),
    UNLINK: ("remove",),
    RMDIR: ("rmdir",),
}
"""System calls that do the same, as strace names them, and the operations that make one each."""
REFUSALS: Final = (
    (MKDIR, "error=ENOSPC:when={}"),
    (OPEN, "error=EMFILE:when={}"),
    (WRITE, "error=ENOSPC:when={}"),
    (WRITE, "error=ENOSPC:when={}+"),
    (SYNC, "error=EIO:when={}"),
    (SYNC, "error=EIO:when={}+"),
    (RENAME, "error=EIO:when={}"),
    (UNLINK, "error=EIO:when={}"),
    (RMDIR, "error=EIO:when={}"),
)
"""What the kernel answers to the k-th of them, or from the k-th on."""


class Commit:
    """One of the cases of commits, done again and again in one place."""

    def __init__(self, case: str, place: Path):
        self.committed, self.step, self.keep = CASES[case]
        self.place = place
        self.made = Recorded(place)
        """What a commit that nothing disturbs does."""
        self.prepare()
        before = set(place.rglob("*"))
        self.run(self.made)
        touched = {place / path for call in self.made.calls for path in call.paths}
        self.paths: list[Path] = sorted(before | touched)

    def prepare(self) -> list[str]:
        """Make the place as it is before the commit; the names of its checkpoints."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()
        if not self.committed:
            return []
        return names(store_of(self.place, *self.committed, keep=self.keep, ops=FaultyOps()))

    def run(self, ops: FileOps) -> None:
        """Open the store and commit."""
        store = store_of(self.place, keep=self.keep, ops=ops)
        store.commit(self.step, state_of(self.step + 100))

    def struck(self, kind: str, how: str) -> tuple[int, bool]:
        """Commit in a fork that is struck at a kind of system call.

        Returns:
            How it ended, and whether a call was refused.
        """
        trace = self.place.with_suffix(".trace")
        options = ["-o", str(trace), "-e", f"inject={kind}:{how}"]
        code = ended(self._try, options, self.paths)
        return code, "(INJECTED)" in trace.read_text()

    def traced(self) -> tuple[list[Call], list[Call]]:
        """What the kernel saw of a commit in a fork, and what that should be."""
        self.prepare()
        trace = self.place.with_suffix(".trace")
        options = ["-y", "-s", "0", "-o", str(trace), "-e", "trace=%file,%desc"]
        assert ended(self._try, options) == DONE
        return calls(trace, self.place), self.made.calls

    def left(self) -> str:
        """What a start finds: the old checkpoint or the new one, whole; and the next one works."""
        after = left_after(self.place, self.committed, self.step)
        assert all(holds(self.place, kept) for kept in self.committed if kept in OCCASIONS)
        store = store_of(self.place, keep=self.keep, ops=FaultyOps())
        later = self.step + 1
        assert is_state(load(store.commit(later, state_of(later))), later)
        return after

    def _try(self) -> int:
        try:
            self.run(FileOps())
        except CheckpointError as error:
            said = ("could not be written", "cannot be used", "cannot be read")
            return REFUSED if any(each in str(error) for each in said) else 1
        return DONE


def kills(commit: Commit) -> int:
    """Kill the commit before each of its system calls; how many there were."""
    num_kills = 0
    seen = set()
    for kind, operations in KINDS.items():
        for k in count(1):
            commit.prepare()
            code, _ = commit.struck(kind, f"signal=KILL:when={k}")
            after = commit.left()
            seen.add(after)
            if code == DONE:
                break
            assert code == -signal.SIGKILL, (kind, k, code)
            num_kills += 1
        assert after == "new"
        least = sum(commit.made.done[operation] for operation in operations)
        assert k - 1 == least or (k > least and kind == OPEN), (kind, k, least)
    assert seen == {"old" if commit.committed else "none", "new"}, seen
    return num_kills


def refusals(commit: Commit) -> int:
    """Refuse each of the commit's system calls, once or from then on; how many there were."""
    num_refusals = 0
    first = "old" if commit.committed else "none"
    for kind, how in REFUSALS:
        for k in count(1):
            before = commit.prepare()
            code, refused = commit.struck(kind, how.format(k))
            assert code in (DONE, REFUSED), (kind, how, k, code)
            if not refused:
                break
            num_refusals += 1
            there = sorted(path.name for path in commit.place.glob("checkpoints/active/*"))
            after = commit.left()
            if code == REFUSED:
                assert (after, there) == (first, before), (kind, how, k)
            else:
                # What was undone may wait for the next commit to be removed.
                assert after == "new" or commit.committed[-1:] > (commit.step,), (kind, how, k)
    return num_refusals


def main(folder: Path, what: str, cases: Sequence[str]) -> dict[str, int]:
    """Strike, or only look at, these cases; how many system calls were struck, or seen, in each."""
    torch.set_num_threads(1)
    strike = {"kills": kills, "refusals": refusals, "calls": seen_as_made}[what]
    return {case: strike(Commit(case, folder / case.replace(" ", "-"))) for case in cases}


def seen_as_made(commit: Commit) -> int:
    """Assert that the kernel saw what FileOps says it did, nothing else; how many calls."""
    seen, made = commit.traced()
    assert seen == made, "\n".join(unified_diff(list(map(str, made)), list(map(str, seen))))
    return len(seen)


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3:])))
