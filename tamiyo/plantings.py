"""Plantings: which blueprint could be tried at which place, and which of them race now."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from leyline import Candidate, Stage
from tamiyo.state import State


class Planting(NamedTuple):
    """One blueprint for one place."""

    seed: str
    site: str
    blueprint: str


def choose_plantings(state: State, *, at_most: int, race: int) -> list[Planting]:
    """What fits the parameters left and is under no embargo, one entry for each chunk of a site.

    Where there are too many to try at once, an even stride that is shifted from race to race tries
    them in turn; a site of ten thousand chunks is never listed whole.

    Args:
        race: number of the race, from 1.
    """
    num_chunks = {site.name: site.num_chunks for site in state.schema.sites}
    embargoed = _embargoed(state, num_chunks)
    fitting = [
        candidate
        for candidate in state.schema.candidates
        if candidate.parameters <= state.budget_left
        and not (num_chunks[candidate.site] == 1 and _key(candidate, 0) in embargoed)
    ]
    ends = list(accumulate(num_chunks[candidate.site] for candidate in fitting))
    total = ends[-1] if ends else 0
    picks: Sequence[int] = range(total)
    if total > at_most:
        shift = (race - 1) % math.ceil(total / at_most)
        picks = [i * total // at_most + shift for i in range(at_most)]
    chosen: list[Planting] = []
    taken: set[str] = set()
    for pick in picks:
        index = bisect_right(ends, pick)
        candidate, chunk = fitting[index], pick - (ends[index - 1] if index else 0)
        if _key(candidate, chunk) not in embargoed:
            seed = state.free_place(candidate.site, taken, chunk, num_chunks[candidate.site])
            taken.add(seed)
            chosen.append(Planting(seed, candidate.site, candidate.blueprint))
    return chosen


def _embargoed(state: State, num_chunks: Mapping[str, int]) -> set[tuple[str, str, int]]:
    return {
        (row.site, row.blueprint, int(row.seed.rpartition("/")[2]) % num_chunks[row.site])
        for row in state.rows
        if row.stage in (Stage.CULLED, Stage.ROLLED_BACK) and row.embargo_epochs_left > 0
    }


def _key(candidate: Candidate, chunk: int) -> tuple[str, str, int]:
    return candidate.site, candidate.blueprint, chunk
