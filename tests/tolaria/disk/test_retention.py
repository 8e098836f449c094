"""Which checkpoints stay, and where: claims on every history that there can be."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tolaria.disk.test_checkpoint import FaultyOps, state_of
from tolaria.disk.manifest import Occasion, Priority, read_manifest, sealed
from tolaria.disk.retention import Kept, Rules, plan
from tolaria.disk.store import CheckpointStore

PRIORITIES: list[Priority] = ["low", "normal", "high"]
rules = st.builds(
    Rules,
    st.integers(1, 4),
    st.integers(0, 3),
    st.none() | st.integers(1, 2000),
)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Kept], Path]:
    """Any checkpoints, of which the one written last is the newest."""
    steps = draw(st.lists(st.integers(0, 30), min_size=1, max_size=12, unique=True))
    there = [
        Kept(
            path=Path(f"step-{step:08d}"),
            order=(step, 1),
            priority=draw(st.sampled_from(PRIORITIES)),
            size_bytes=draw(st.integers(1, 500)),
            is_sound=draw(st.booleans()),
            is_archived=draw(st.booleans()),
        )
        for step in steps
    ]
    newest = there[-1]._replace(is_sound=True, is_archived=False)
    return [*there[:-1], newest], newest.path


@given(histories(), rules)
def test_whatever_there_is_the_promises_hold(history: tuple[list[Kept], Path], wanted: Rules):
    """The newest stays active; no more stay than the rules say, nothing damaged or undone, and no
    more bytes; of equals the older goes first; nothing is both removed and archived."""
    there, newest = history
    remove, archive = plan(there, newest, wanted)
    assert not set(remove) & set(archive)
    assert newest not in (*remove, *archive)
    staying = [kept for kept in there if kept.path not in remove]
    now = next(kept for kept in there if kept.path == newest)
    assert all(k.order <= now.order and k.is_sound for k in staying)
    active = [k for k in staying if not k.is_archived and k.path not in archive]
    archived = [k for k in staying if k not in active]
    assert len(active) <= wanted.active
    for priority in PRIORITIES:
        num = sum(k.priority == priority for k in archived)
        assert num <= (0 if priority == "low" else wanted.archived)
    if wanted.size_limit_bytes is not None and len(staying) > 1:
        assert sum(k.size_bytes for k in staying) <= wanted.size_limit_bytes
    past = [k for k in there if k.is_sound and k.order < now.order]
    if wanted.size_limit_bytes is None:
        # Every one that goes has at least as many of its kind after it as are kept of that kind.
        for k in past:
            if k.path in remove and k.priority != "low":
                later = [o for o in past if o.priority == k.priority and o.order > k.order]
                assert len(later) >= wanted.archived


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.sampled_from(PRIORITIES)), max_size=9), rules)
def test_a_store_does_what_the_plan_says(commits: list[tuple[int, Priority]], wanted: Rules):
    """After any commits, backward ones too, what is on the disk is what the rules leave: the newest
    can be loaded, each of the rest is sound and in its place, and no temporary is left."""
    with tempfile.TemporaryDirectory() as folder:
        store = CheckpointStore(Path(folder), wanted, FaultyOps())
        for step, priority in commits:
            path = store.commit(step, state_of(step), Occasion(priority=priority))
            assert store.newest_valid() == path
            active = [p for p in store.paths() if p.parent == store.active]
            archived = [p for p in store.paths() if p.parent == store.archive]
            assert len(active) <= wanted.active
            assert all(read_manifest(p).occasion.priority != "low" for p in archived)
            assert len(archived) <= 2 * wanted.archived
            assert max(store.paths(), key=lambda p: read_manifest(p).step) == path
            assert not list(Path(folder).rglob(".tmp-*"))


def test_listing_does_not_read_what_it_knows(tmp_path: Path):
    """A manifest that has not changed is not read again; one that is replaced is read anew."""
    store = CheckpointStore(tmp_path, Rules(9), FaultyOps())
    path = store.commit(1, state_of(1), Occasion(reason="first"))
    assert store.manifest(path).occasion.reason == "first"
    known = store.manifest(path)
    assert store.manifest(path) is known
    other = msgspec.structs.replace(known, occasion=Occasion(reason="other"))
    (path / "manifest.json").unlink()
    (path / "manifest.json").write_bytes(sealed(other))
    assert store.manifest(path).occasion.reason == "other"


def test_checkpoints_of_earlier_versions_are_found_and_retired(tmp_path: Path):
    """Those directly in the directory are the older ones: found, loaded, and removed in turn."""
    store = CheckpointStore(tmp_path, Rules(2), FaultyOps())
    for step in (1, 2):
        store.commit(step, state_of(step))
    for path in store.paths():
        path.rename(tmp_path / path.name)
    again = CheckpointStore(tmp_path, Rules(2), FaultyOps())
    assert again.newest_valid() == tmp_path / "step-00000002"
    newest = again.commit(3, state_of(3))
    assert again.paths() == [tmp_path / "step-00000002", newest]
