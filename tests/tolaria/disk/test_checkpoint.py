"""Claims on checkpoints. Run as a script, this file kills forked writers: `kill_everywhere`."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from leyline import CheckpointError, ConfigError
from tolaria.disk.checkpoint import load, order, verify
from tolaria.disk.files import FileOps
from tolaria.disk.manifest import Occasion, read_manifest
from tolaria.disk.retention import Rules
from tolaria.disk.store import CheckpointStore
from tolaria.disk.writer import CheckpointWriter

ROOT = Path(__file__).parents[3]
FILES = ("model.safetensors", "state.safetensors", "state.json", "manifest.json")
OCCASIONS = {11: Occasion(reason="best", priority="high")}
PRIMITIVES = ("mkdir", "write", "fsync", "fsync_dir", "rename", "remove", "rmdir")


class FaultyOps(FileOps):
    """Calls `fault(k, name, path, data)` before the k-th operation, counted from 1.

    It does not wait for the disk: a killed process loses nothing that the kernel has.
    """

    def __init__(self, fault=lambda *_: None):
        self.count = 0
        self.log = []
        self._fault = fault


def _faulty(name):
    primitive = getattr(FileOps, name)

    def operation(self, path, *rest):
        self.count += 1
        self.log.append(name)
        self._fault(self.count, name, path, rest[0] if name == "write" else None)
        if not name.startswith("fsync"):
            primitive(self, path, *rest)

    return operation


for _name in PRIMITIVES:
    setattr(FaultyOps, _name, _faulty(_name))


def state_of(step):
    """A small state in which every file differs from step to step."""
    generator = torch.Generator().manual_seed(step)
    weight = torch.randn(4, 3, generator=generator)
    return {
        "step": step,
        "state_dict": OrderedDict(
            {"a.weight": weight, "b.weight": weight, "bias": torch.randn(4, generator=generator)}
        ),
        "optimizer_states": [{"state": {0: {"exp_avg": torch.randn(4, generator=generator)}}}],
        "rng": torch.get_rng_state(),
        "loss": float("nan"),
    }


def is_state(state, step):
    want = state_of(step)
    return (
        list(state) == list(want)
        and state["step"] == step
        and state["state_dict"]["a.weight"] is state["state_dict"]["b.weight"]
        and all(torch.equal(v, want["state_dict"][k]) for k, v in state["state_dict"].items())
        and torch.equal(
            state["optimizer_states"][0]["state"][0]["exp_avg"],
            want["optimizer_states"][0]["state"][0]["exp_avg"],
        )
    )


def store_of(folder, *steps, keep=2, **options):
    store = CheckpointStore(folder / "checkpoints", Rules(keep), **options)
    for step in steps:
        store.commit(step, state_of(step), OCCASIONS.get(step, Occasion()))
    return store


def names(store):
    return sorted(os.listdir(store.active))


def operations(folder, committed, step, keep):
    """The operations of one commit, in order."""
    ops = FaultyOps()
    store = store_of(folder, *committed, keep=keep, ops=ops)
    ops.log.clear()
    store.commit(step, state_of(step))
    return list(ops.log)


# --- what is written ---------------------------------------------------------------------------


def test_a_checkpoint_comes_back(tmp_path):
    """The state is as it was, tied weights stay tied, and the keys keep their order."""
    store = store_of(tmp_path, 7)
    path = store.newest_valid()
    assert path == store.active / "step-00000007"
    assert sorted(os.listdir(path)) == sorted(FILES)
    assert is_state(load(path), 7)
    assert verify(path) == []


def test_files_are_durable_before_the_checkpoint_has_its_name(tmp_path):
    """The order is: make, write all, fsync all, fsync the folder, rename, fsync the parent."""
    ops = FaultyOps()
    store = CheckpointStore(tmp_path, ops=ops)
    ops.log.clear()
    store.commit(1, state_of(1))
    assert ops.log == ["mkdir", *["write"] * 4, *["fsync"] * 4, "fsync_dir", "rename", "fsync_dir"]


def test_what_cannot_be_held_is_named_and_writes_nothing(tmp_path):
    """A foreign object is refused by its place before anything reaches the disk."""
    store = store_of(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"a.b\[0\] is a object"):
        store.commit(2, {"a": {"b": [object()]}})
    assert names(store) == ["step-00000001"]


# --- which are kept ----------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_few_are_kept(tmp_path, keep):
    """Ordered by number, not by name or time: eight digits and more."""
    steps = [8, 9, 10, 99_999_999, 100_000_000, 100_000_001]
    store = store_of(tmp_path, *steps, keep=keep)
    assert [read_manifest(path).step for path in store.paths()] == steps[-keep:]


def test_the_last_sound_one_is_not_crowded_out_by_damaged_ones(tmp_path):
    """Checkpoints known to be damaged do not count as kept."""
    store = store_of(tmp_path, 1, 2, 3, keep=3)
    for step in (2, 3):
        (store.active / f"step-0000000{step}" / "state.json").unlink()
    assert store.newest_valid() == store.active / "step-00000001"
    assert list(store.problems) == ["step-00000003", "step-00000002"]
    store.commit(4, state_of(4))
    assert names(store) == ["step-00000001", "step-00000004"]


def test_committing_a_step_again_replaces_it(tmp_path):
    """The second commit of a step is the one that is loaded, and the only one that is left."""
    store = store_of(tmp_path, 1, 5)
    for _ in range(3):
        path = store.commit(5, state_of(6))
        assert store.newest_valid() == path
        assert is_state(load(path), 6)
        assert names(store) == ["step-00000001", path.name]


def test_going_back_removes_the_undone_future(tmp_path):
    """After a return to step 10, the commit of step 15 is the newest there is."""
    store = store_of(tmp_path, 10, 20, 30, keep=3)
    store.commit(15, state_of(15))
    assert names(store) == ["step-00000010", "step-00000015"]


def test_nonsense_is_refused(tmp_path):
    """Keeping none, a negative step, and writing through a read-only store are refused."""
    with pytest.raises(ConfigError, match="0 checkpoints cannot be kept"):
        CheckpointStore(tmp_path, Rules(0))
    store = store_of(tmp_path, 1)
    with pytest.raises(CheckpointError, match="-1 is no number of steps"):
        store.commit(-1, {})
    (store.active / ".tmp-step-00000002").mkdir()
    reader = CheckpointStore(store.directory, read_only=True)
    with pytest.raises(CheckpointError, match="read-only"):
        reader.commit(2, {})
    assert names(store) == [".tmp-step-00000002", "step-00000001"]
    assert reader.newest_valid() == store.newest_valid()
    assert CheckpointStore(tmp_path / "gone", read_only=True).newest_valid() is None
    assert not (tmp_path / "gone").exists()


def test_what_a_crash_left_is_removed_on_opening(tmp_path):
    """Stale temporaries go, whatever they are; checkpoints stay."""
    store = store_of(tmp_path, 1)
    (store.active / ".tmp-step-00000002" / "deep").mkdir(parents=True)
    (store.active / ".tmp-file").write_text("1")
    store_of(tmp_path)
    assert names(store) == ["step-00000001"]


# --- crashes -----------------------------------------------------------------------------------

CASES = {
    "first": ((), 1, 2),
    "next": ((1,), 2, 2),
    "prune": ((1, 2), 3, 2),
    "only one": ((1,), 2, 1),
    "again": ((1, 2), 2, 2),
    "went back": ((1, 9), 2, 2),
    "archive": ((11, 12), 13, 2),
}
"""Steps committed before, the step whose commit is struck, and how many are kept."""
PARTS = [number / 10 for number in range(11)]
"""Of what is written when the writer dies: from an empty file to a whole one, none of it synced."""


def left_after(folder, committed, step):
    """Reopen after a crash and say which state is there; a broken promise raises."""
    store = store_of(folder, ops=FaultyOps())
    assert not [name for name in names(store) if name.startswith(".")], names(store)
    path = store.newest_valid()
    assert not store.problems, store.problems
    if path is None:
        assert not committed
        return "none"
    state = load(path)
    if is_state(state, step + 100):
        return "new"
    assert is_state(state, committed[-1]), path
    return "old"


def holds(folder, step):
    """Whether a checkpoint of this step is there, sound, in one place alone."""
    found = [path for path in store_of(folder).paths() if read_manifest(path).step == step]
    return [verify(path) for path in found] == [[]]


def kill_everywhere(folder, cases):
    """Kill a forked writer before every operation of these cases, and amid every write."""
    torch.set_num_threads(1)
    num_kills = 0
    for name in cases:
        committed, step, keep = CASES[name]
        seen = set()
        log = operations(folder / f"{name}-counted", committed, step, keep)
        for k in range(1, len(log) + 2):
            parts = PARTS if k <= len(log) and log[k - 1] == "write" else []
            for part in [None, *parts]:
                place = folder / f"{name}-{k}-{part}"
                store_of(place, *committed, keep=keep, ops=FaultyOps())
                died = fork_and_commit(place, step, keep, k, part)
                num_kills += died
                after = left_after(place, committed, step)
                assert died == (k <= len(log)), (name, k)
                assert died or after == "new", (name, k, after)
                assert all(holds(place, kept) for kept in committed if kept in OCCASIONS)
                seen.add(after)
                store = store_of(place, keep=keep, ops=FaultyOps())
                assert is_state(load(store.commit(step + 1, state_of(step + 1))), step + 1)
                shutil.rmtree(place)
        assert seen == {"old" if committed else "none", "new"}, (name, seen)
    return num_kills


def fork_and_commit(place, step, keep, k, part):
    """Commit in a child that dies at operation k, with that part of it written; whether it died."""

    def die(count, name, path, data):
        if count == k:
            if part is not None:
                path.write_bytes(data[: round(part * len(data))])
            os._exit(9)

    pid = os.fork()
    if pid == 0:
        try:
            ops = FaultyOps()
            store = store_of(place, keep=keep, ops=ops)
            writer = CheckpointWriter(store, lambda: None, background=True)
            ops.count, ops._fault = 0, die
            assert writer.save(step, state_of(step + 100), Occasion()) is None
            assert writer.close() is None
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 9), code
    return code == 9


@pytest.mark.parametrize(
    "cases",
    [
        ["archive"],
        pytest.param(["first", "next", "prune"], marks=pytest.mark.slow),
        pytest.param(["only one", "again", "went back"], marks=pytest.mark.slow),
    ],
)
@pytest.mark.fault(1)
def test_killed_at_any_operation_the_old_or_the_new_is_there(tmp_path, cases, faults):
    """However many background writers are killed, each leaves the old or the new checkpoint,
    whole; one that is worth keeping is never lost on its way to the archive."""
    child = subprocess.run(
        [sys.executable, str(Path(__file__)), str(tmp_path), *cases],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert child.returncode == 0, child.stderr
    assert int(child.stdout) >= 55 * len(cases)
    faults.injected(int(child.stdout))


# --- disks that refuse -------------------------------------------------------------------------


def commit_or_say(store, step):
    try:
        return store.commit(step, state_of(step + 100)), ""
    except CheckpointError as error:
        return None, str(error)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG])
@pytest.mark.fault(5)
def test_a_refusing_disk_leaves_the_old_checkpoint(tmp_path, case, once, code, faults):
    """Refused at any operation, for once or for good: an error or success, and no temporaries."""
    committed, step, keep = CASES[case]
    num_operations = len(operations(tmp_path / "counted", committed, step, keep))
    for k in range(1, 1 + num_operations):
        ops = FaultyOps()
        store = store_of(tmp_path / str(k), *committed, keep=keep, ops=ops)
        before = names(store)
        ops.count = 0

        def refuse(count, name, path, data, k=k):
            if count == k or (not once and count > k and name in ("mkdir", "write", "fsync")):
                if data is not None:
                    path.write_bytes(data[: len(data) // 2])
                raise OSError(code, os.strerror(code), str(path))

        ops._fault = refuse
        path, said = commit_or_say(store, step)
        if path is None:
            assert "could not be written" in said
            assert ("free some space" in said) == (code != errno.EIO)
            assert names(store) == before
            continue
        assert is_state(load(path), step + 100)
        assert not [name for name in names(store) if name.startswith(".")]
    faults.injected(num_operations)


# --- two processes -----------------------------------------------------------------------------


def test_a_reader_beside_the_writer_always_finds_one(tmp_path):
    """While another process commits and removes, the newest sound checkpoint is found each time,
    never an older one than before, and nothing is called damaged."""
    store_of(tmp_path, 1, ops=FaultyOps())
    pid = os.fork()
    if pid == 0:
        try:
            store_of(tmp_path, *range(2, 120), keep=1, ops=FaultyOps())
            os._exit(0)
        finally:
            os._exit(1)
    last, status = 0, None
    while status is None:
        reader = CheckpointStore(tmp_path / "checkpoints", read_only=True)
        found = reader.newest_valid()
        assert found is not None
        assert order(found)[0] >= last
        assert not reader.problems
        last = order(found)[0]
        ended, code = os.waitpid(pid, os.WNOHANG)
        status = code if ended else None
    assert (status, reader.newest_valid().name) == (0, "step-00000119")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1]) as scratch:
        print(kill_everywhere(Path(scratch), sys.argv[2:]))
