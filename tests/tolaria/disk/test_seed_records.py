"""Seed records on disk: whatever kills, fills or damages, the newest whole record is found."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kasmina import Executor, SeedTable, discover, unpack_record
from leyline import CheckpointError, Evidence, Stage
from tests.kasmina.grower import SEED, Grower, X, advance
from tests.reliability.plugin import Faults
from tolaria.disk.seed_records import FILE_NAME, SLOT_SIZE_BYTES, SeedRecords, read_seed_records

LAP = [Stage.GERMINATED, Stage.TRAINING, Stage.CANCELLED, Stage.DORMANT]
SATISFIED = Evidence(epochs_in_stage=1, blueprint_proven=True, embargo_epochs_left=0)


class Writer:
    """A table and its file, moved on without an executor."""

    def __init__(self, path: Path) -> None:
        self.table = SeedTable()
        self.records = SeedRecords(path)
        self.last_id = self.records.last_id

    def move(self, seed: str) -> bytes:
        if seed not in self.table:
            self.table.add(seed, site=0)
        stage = self.table.stage(seed)
        to = LAP[(LAP.index(stage) + 1) % 4] if stage in LAP else LAP[0]
        self.table.advance(seed, to, SATISFIED)
        self.last_id += 1
        self.table.put(seed, checkpoint_id=self.last_id)
        record = self.table.record(seed, "low_rank")
        self.records.commit(seed, self.last_id, record)
        return record


def same(found: list[bytes], expected: list[bytes]) -> bool:
    return [unpack_record(data) for data in found] == [unpack_record(data) for data in expected]


def test_two_records_of_each_seed_are_kept(tmp_path: Path) -> None:
    """The newest and the one before it, for more seeds than the file began with, also when read
    again by another holder; a third never shows."""
    writer = Writer(tmp_path / FILE_NAME)
    made = {f"conv/{n}": [writer.move(f"conv/{n}")] for n in range(200)}
    for moves in (1, 2):
        for seed in list(made)[::moves]:
            made[seed] = [writer.move(seed), made[seed][0]]
    for records in (writer.records, SeedRecords(tmp_path / FILE_NAME)):
        assert records.last_id == 500
        assert records.records("unknown/0") == []
        for seed, expected in made.items():
            assert same(records.records(seed), expected)
    newest = read_seed_records(tmp_path / FILE_NAME)
    assert newest == {seed: unpack_record(pair[0]) for seed, pair in made.items()}
    again = Writer(tmp_path / FILE_NAME)
    record = again.move("conv/7")
    assert unpack_record(record).checkpoint_id == 501
    assert same(again.records.records("conv/7"), [record, made["conv/7"][0]])
    for number in range(3):
        again.move(f"new/{number}")
    del made["conv/7"]
    for seed, expected in made.items():
        assert same(again.records.records(seed), expected)
    assert len(read_seed_records(tmp_path / FILE_NAME)) == 203


def test_space_is_really_allocated(tmp_path: Path) -> None:
    """No block is missing at the start nor after it grew, so no store fails for want of space."""
    writer = Writer(tmp_path / FILE_NAME)
    for number in (0, *range(70)):
        writer.move(f"conv/{number}")
        status = (tmp_path / FILE_NAME).stat()
        assert status.st_size % (2 * SLOT_SIZE_BYTES) == 0
        assert status.st_blocks * 512 >= status.st_size >= (number + 2) * 2 * SLOT_SIZE_BYTES


@contextlib.contextmanager
def no_file_larger_than(size_bytes: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)


def test_without_room_records_are_kept_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that cannot be made is not left behind; one that cannot grow keeps what it has; both
    are said once, and records are found either way."""
    path = tmp_path / FILE_NAME
    with caplog.at_level(logging.WARNING, "esper"), no_file_larger_than(100_000):
        writer = Writer(path)
        made = [writer.move("a/0"), writer.move("a/0")]
        assert same(writer.records.records("a/0"), made[::-1])
        assert list(tmp_path.iterdir()) == []
    assert len(caplog.records) == 1
    assert "in memory only" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "esper"), no_file_larger_than(200_000):
        writer = Writer(path)
        made = [writer.move(f"a/{number}") for number in range(80)]
        for number, record in enumerate(made):
            assert same(writer.records.records(f"a/{number}"), [record])
    assert len(caplog.records) == 1
    assert path.stat().st_size == 128 * SLOT_SIZE_BYTES
    assert len(read_seed_records(path)) == 63


def test_a_record_larger_than_a_slot_is_kept_in_memory(tmp_path: Path) -> None:
    """Names may be long; nobody's slot is overwritten."""
    writer = Writer(tmp_path / FILE_NAME)
    small, large = writer.move("a/0"), writer.move("b" * 1000 + "/0")
    after = writer.move("c/0")
    assert same(writer.records.records("b" * 1000 + "/0"), [large])
    assert same(writer.records.records("a/0"), [small])
    assert same(writer.records.records("c/0"), [after])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_is_passed_over(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever bytes of the slots are overwritten: a record found is one that was made, one whose
    slot is whole is found, and the file can be written on."""
    path = tmp_path / FILE_NAME
    path.unlink(missing_ok=True)
    writer = Writer(path)
    made: dict[str, list[bytes]] = {}
    for seed in [f"a/{n % 3}" for n in range(7)]:
        made.setdefault(seed, []).insert(0, writer.move(seed))
    content = bytearray(path.read_bytes())
    first, last = 2 * SLOT_SIZE_BYTES, 8 * SLOT_SIZE_BYTES
    hits = data.draw(
        st.lists(st.tuples(st.integers(first, last), st.binary(min_size=1)), max_size=8)
    )
    before = bytes(content)
    for start, noise in hits:
        content[start : start + len(noise)] = noise
    path.write_bytes(content)
    records = SeedRecords(path)
    for seed, history in made.items():
        found = records.records(seed)
        whole = [r for r in history[:2] if before.find(r) == bytes(content).find(r)]
        assert same(found, whole)
    again = Writer(path)
    newest = again.move("a/1")
    assert same(SeedRecords(path).records("a/1")[:1], [newest])


@pytest.mark.parametrize("content", [b"junk", b"ESPRSEED" + b"\xff" * 60, os.urandom(5000)])
def test_a_file_of_another_kind_is_moved_aside(tmp_path: Path, content: bytes) -> None:
    """Its bytes are kept, records go into a new file, and a reader is told what it is."""
    path = tmp_path / FILE_NAME
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a file of seed records"):
        read_seed_records(path)
    record = Writer(path).move("a/0")
    assert (tmp_path / f"{FILE_NAME}.damaged").read_bytes() == content
    assert read_seed_records(path) == {"a/0": unpack_record(record)}
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_seed_records(tmp_path / "nowhere")


@pytest.mark.parametrize("size", [0, 5, 16, 1024, 3000, 200_001])
def test_a_file_cut_short_is_mended(tmp_path: Path, size: int) -> None:
    """Cut anywhere, or longer than it was: what is whole is found and it can be written on."""
    path = tmp_path / FILE_NAME
    record = Writer(path).move("a/0")
    os.truncate(path, size)
    survives = size >= 2 * SLOT_SIZE_BYTES + len(record)
    assert same(SeedRecords(path).records("a/0"), [record] if survives else [])
    newest = Writer(path).move("a/0")
    assert read_seed_records(path)["a/0"] == unpack_record(newest)


@pytest.mark.parametrize("size", [0, 1, 2 * SLOT_SIZE_BYTES, 4096, 6 * SLOT_SIZE_BYTES + 9])
def test_a_live_file_cut_short_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    """Reading finds what is left, and no page that has gone is touched; from the next store on
    records are kept in memory, also of new seeds, which is said once."""
    path = tmp_path / FILE_NAME
    seeds = [f"a/{number}" for number in range(3)]
    writer = Writer(path)
    made = {seed: [writer.move(seed), writer.move(seed)] for seed in seeds}
    with caplog.at_level(logging.WARNING, "esper"):
        os.truncate(path, size)
        for number, seed in enumerate(seeds):
            starts = [(2 + 2 * number + turn) * SLOT_SIZE_BYTES for turn in (0, 1)]
            left = [r for r, at in zip(made[seed], starts, strict=True) if at + 1024 <= size]
            assert same(writer.records.records(seed), left[::-1])
        assert not caplog.records
        after = {seed: writer.move(seed) for seed in [*seeds, *(f"b/{n}" for n in range(200))]}
    assert all(same(writer.records.records(seed)[:1], [r]) for seed, r in after.items())
    assert len(caplog.records) == 1
    assert "in memory only" in caplog.text
    assert "cut short" in caplog.text
    assert path.stat().st_size == size


def test_a_link_is_not_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A link in place of the file is said to be in the way: records are kept in memory, and what it
    leads to stays as it is."""
    target = tmp_path / "precious"
    target.write_bytes(b"")
    (tmp_path / FILE_NAME).symlink_to(target)
    writer = Writer(tmp_path / FILE_NAME)
    record = writer.move(SEED)
    assert same(writer.records.records(SEED), [record])
    assert target.read_bytes() == b""
    assert "seed records are in memory only" in caplog.text


def test_the_executor_goes_on_from_the_file(tmp_path: Path) -> None:
    """A resumed run gives higher ids than any record in the file, and restores a seed from it."""
    path = tmp_path / FILE_NAME
    growers = []
    for _ in range(2):
        grower = Grower()
        grower.executor = Executor(grower.model, rng_seed=1, records=SeedRecords(path))
        grower.executor.grounds.open(discover(grower.model, (X,)))
        grower.to(Stage.TRAINING)
        grower.apply(advance(Stage.CANCELLED))
        growers.append(grower)
    assert [grower.table.get(SEED, "checkpoint_id") for grower in growers] == [3, 6]
    found = read_seed_records(path)[SEED]
    assert found.row().tobytes() == growers[1].table.rows([SEED]).tobytes()
    for record, stage in zip(
        growers[1].executor.lifecycle.sink.records(SEED),
        (Stage.CANCELLED, Stage.TRAINING),
        strict=True,
    ):
        growers[0].executor.lifecycle.restore(record)
        assert growers[0].stage() is stage


def write_for_ever(path: Path, told: int) -> NoReturn:
    """A child's work: transitions of growing numbers of seeds, each told once it is committed."""
    writer = Writer(path)
    number = 0
    while True:
        number += 1
        writer.move(f"a/{number * 7919 % (1 + number // 50)}")
        os.write(told, struct.pack("<q", writer.last_id))


@pytest.mark.fault(1)
@pytest.mark.parametrize("num_ids", [1, 2, 50, 333, 2_000, 10_000])
def test_a_killed_writer_leaves_what_it_said(tmp_path: Path, num_ids: int, faults: Faults) -> None:
    """After kill -9 every id that was told is in the file or was replaced by a later one of its
    seed, no more than the slot being written is damaged, and the next writer goes on."""
    path = tmp_path / FILE_NAME
    reader, told_to = os.pipe()
    child = os.fork()
    if not child:
        try:
            write_for_ever(path, told_to)
        finally:
            os._exit(1)
    os.close(told_to)
    with os.fdopen(reader, "rb") as heard:
        heard.read(8 * num_ids)
        os.kill(child, signal.SIGKILL)
        left = heard.read()
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    found = read_seed_records(path)
    told = num_ids + len(left) // 8
    last_id = max(record.checkpoint_id for record in found.values())
    assert told <= last_id <= told + 1
    replay = Writer(tmp_path / "replay.bin")
    for number in range(1, told + 1):
        replay.move(f"a/{number * 7919 % (1 + number // 50)}")
    expected = read_seed_records(tmp_path / "replay.bin")
    newer = {seed for seed, record in found.items() if record.checkpoint_id > told}
    assert len(newer) <= 1
    for seed, record in expected.items():
        assert found[seed] == record or seed in newer
    assert SeedRecords(path).last_id == last_id
    faults.injected()
