"""Plantings: every place that fits, in turn where there are too many, none under embargo."""

from __future__ import annotations

import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyline import Stage
from tamiyo import State
from tamiyo.plantings import Openings, choose_plantings
from tests.tamiyo.boundaries import CANDIDATES, SITES, Row, state


def chunked(num_chunks: int, *rows: Row) -> State:
    """The state with every site cut into chunks."""
    plain = state(*rows)
    sites = tuple(msgspec.structs.replace(s, num_chunks=num_chunks) for s in plain.schema.sites)
    return State(plain.packet, msgspec.structs.replace(plain.schema, sites=sites))


def test_each_chunk_is_a_place() -> None:
    """Every blueprint is tried on every chunk, and a seed's number says which chunk it is on."""
    found = choose_plantings(Openings(chunked(2)), at_most=100, race=1)
    assert len(found) == len(CANDIDATES) * 2
    assert len({planting.seed for planting in found}) == len(found)
    chunks = {(p.site, p.blueprint, int(p.seed.rpartition("/")[2]) % 2) for p in found}
    assert chunks == {(site, blueprint, c) for site, blueprint in CANDIDATES for c in range(2)}


@given(num_chunks=st.integers(1, 7), at_most=st.integers(1, 40))
def test_races_in_turn_try_everything(num_chunks: int, at_most: int) -> None:
    """No race is larger than allowed, and the races of one round leave no place out."""
    known = chunked(num_chunks)
    total = len(CANDIDATES) * num_chunks
    num_races = -(-total // at_most)
    tried = set()
    for race in range(1, num_races + 1):
        found = choose_plantings(Openings(known), at_most=at_most, race=race)
        assert len(found) <= at_most
        tried |= {(p.site, p.blueprint, int(p.seed.rpartition("/")[2]) % num_chunks) for p in found}
    assert len(tried) == total


def test_an_embargo_is_on_one_chunk() -> None:
    """A culled seed closes its own chunk to its own blueprint, and nothing else."""
    culled = Row("block1/3", blueprint="conv", stage=Stage.CULLED, embargo_epochs_left=5)
    found = choose_plantings(Openings(chunked(2, culled)), at_most=100, race=1)
    chunks = {(p.site, p.blueprint, int(p.seed.rpartition("/")[2]) % 2) for p in found}
    everything = {(site, blueprint, c) for site, blueprint in CANDIDATES for c in range(2)}
    assert everything - chunks == {("block1", "conv", 1)}


def test_an_occupied_place_gives_the_next_on_the_same_chunk() -> None:
    """Where a seed stands, the next number of the same chunk is planted."""
    standing = Row("block1/1", blueprint="norm", stage=Stage.FOSSILIZED, alpha=1.0)
    found = choose_plantings(Openings(chunked(2, standing)), at_most=100, race=1)
    numbers = {p.seed for p in found if p.site == "block1"}
    assert "block1/1" not in numbers
    assert "block1/3" in numbers


@pytest.mark.parametrize("num_chunks", [250, 100_000])
def test_a_site_of_many_chunks_is_never_listed_whole(num_chunks: int) -> None:
    """Choosing 32 of any number of places takes time for 32: 400 times as many cost no more."""

    def took_s(known: State) -> float:
        start_s = time.perf_counter()
        choose_plantings(Openings(known), at_most=32, race=3)
        return time.perf_counter() - start_s

    few, many = chunked(2), chunked(num_chunks)
    took_s(few)
    assert min(took_s(many) for _ in range(5)) < 20 * min(took_s(few) for _ in range(5))


def test_a_small_budget_leaves_the_small_ones() -> None:
    """What does not fit the parameters left is not tried."""
    assert {site for site, _ in CANDIDATES} == set(SITES)
    found = choose_plantings(Openings(state(param_budget=50)), at_most=100, race=1)
    assert {planting.blueprint for planting in found} == {"norm"}
