"""Seed records: whole or refused, and put back to the last bit."""

from __future__ import annotations

import itertools
import struct
import zlib

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kasmina import SeedTable, unpack_record
from leyline import CheckpointError, Stage
from tests.evidence import SATISFIED

LAP = [Stage.GERMINATED, Stage.TRAINING, Stage.CANCELLED, Stage.DORMANT]


def table_with(seed: str, num_moves: int, **cells: float) -> SeedTable:
    table = SeedTable()
    table.add("other/0", site=1)
    table.add(seed, site=2)
    for to in itertools.islice(itertools.cycle(LAP), num_moves):
        table.advance(seed, to, SATISFIED)
    table.put(seed, **cells)
    return table


def bits(table: SeedTable) -> list[bytes]:
    state = table.state_dict()
    return [t.numpy().tobytes() for t in (*state["columns"].values(), state["history"])]


names = st.text(st.characters(codec="utf-8"), max_size=20)
ints = st.integers(-(2**31), 2**31 - 1)
cells = st.fixed_dictionaries(
    {
        "blueprint": ints,
        "checkpoint_id": ints,
        "grafting_strategy": ints,
        "birth_epoch": ints,
        "parameters": st.integers(-(2**63), 2**63 - 1),
        "alpha": st.floats(width=32),
        "trial_gain": st.floats(width=32),
        "counterfactual_error": st.floats(width=32),
    }
)


@given(names, names, st.integers(0, 25), cells)
def test_round_trip(site: str, blueprint: str, num_moves: int, values: dict[str, float]) -> None:
    """A row comes back bit for bit, into its own table and into one that never had the seed."""
    seed = f"{site}/0"
    assume(seed != "other/0")
    table = table_with(seed, num_moves, **values)
    record, before, rows = table.record(seed, blueprint), bits(table), table.rows([seed])
    found = unpack_record(record + b"left over")
    assert (found.seed, found.site, found.blueprint) == (seed, site, blueprint)
    assert found.checkpoint_id == values["checkpoint_id"]
    assert found.row().tobytes() == rows.tobytes()
    table.put(seed, stage=10, alpha=0.5, parameters=1, num_transitions=3, trial_steps=9)
    assert table.restore(record) == seed
    assert bits(table) == before
    stranger = SeedTable()
    assert stranger.restore(record) == seed
    assert stranger.rows().tobytes() == rows.tobytes()
    assert stranger.history(seed) == table.history(seed)


RECORD = table_with("conv/3", 7, checkpoint_id=41, trial_gain=0.25).record("conv/3", "low_rank")


@settings(max_examples=400)
@given(st.sets(st.integers(0, 8 * len(RECORD) - 1), min_size=1, max_size=40))
def test_flipped_bits_are_never_another_record(places: set[int]) -> None:
    """However many bits are flipped, the record is refused."""
    damaged = bytearray(RECORD)
    for place in places:
        damaged[place // 8] ^= 1 << place % 8
    with pytest.raises(CheckpointError):
        unpack_record(bytes(damaged))


def test_every_single_bit_counts() -> None:
    """No bit of a record can be flipped unseen, and none of its ends cut off."""
    for place in range(8 * len(RECORD)):
        damaged = bytearray(RECORD)
        damaged[place // 8] ^= 1 << place % 8
        with pytest.raises(CheckpointError):
            unpack_record(bytes(damaged))
    for size in range(len(RECORD)):
        with pytest.raises(CheckpointError):
            unpack_record(RECORD[:size])


@given(st.binary(max_size=300))
def test_noise_is_refused(noise: bytes) -> None:
    """Random bytes are no record, whatever their length."""
    with pytest.raises(CheckpointError):
        unpack_record(noise)


def resealed(**cells: float) -> bytes:
    return table_with("a/0", 3, **cells).record("a/0")


def sealed(content: bytes) -> bytes:
    return struct.pack("=I", zlib.crc32(content)) + content


HOSTILE = {
    "no such stage": resealed(stage=11),
    "a stage its transitions do not lead to": resealed(stage=3),
    "transitions that are not there": resealed(num_transitions=7),
    "a negative count": resealed(num_transitions=-1),
    "another format": sealed(RECORD[4:8] + b"\x02\x00\x00\x00" + RECORD[12:]),
    "names that are not UTF-8": sealed(RECORD[4:-8] + b"\xff" * 8),
    "a name longer than the record": sealed(RECORD[4:12] + b"\xff" * 4 + RECORD[16:]),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_whole_record_that_no_seed_can_be_is_refused(what: str) -> None:
    """A fitting CRC does not help: the table it should go into is not touched."""
    table = table_with("a/0", 2)
    before = bits(table)
    with pytest.raises(CheckpointError):
        table.restore(HOSTILE[what])
    assert (bits(table), len(table)) == (before, 2)
