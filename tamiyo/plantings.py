"""Plantings: which blueprint could be tried at which place, and which of them race now."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Container, Sequence
from itertools import accumulate
from random import Random
from typing import NamedTuple

from leyline import Candidate, Stage
from tamiyo.state import Place, State


class Planting(NamedTuple):
    """One blueprint for one place."""

    seed: str
    site: str
    blueprint: str


class Openings:
    """Every place that a candidate which fits the parameters left could have, counted, not listed.

    A site of ten thousand chunks is never listed whole.

    Args:
        among: pairs of site and blueprint that are looked at; None: all.
    """

    def __init__(self, state: State, among: Container[tuple[str, str]] | None = None):
        self._state = state
        self._embargoed = _embargoed(state)
        known = state.schema.candidates
        if among is not None:
            known = tuple(c for c in known if (c.site, c.blueprint) in among)
        affordable = [c for c in known if c.parameters <= state.budget_left]
        self.num_too_large = len(known) - len(affordable)
        """Candidates that the budget does not allow."""
        self._fitting = [
            candidate
            for candidate in affordable
            if not (self._chunks(candidate) == 1 and _place(candidate, 0) in self._embargoed)
        ]
        self.num_embargoed = len(affordable) - len(self._fitting)
        """Candidates whose only place is under embargo."""
        self._ends = list(accumulate(map(self._chunks, self._fitting)))

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Site and blueprint of the candidates that have a place, in the catalogue's order."""
        return [(candidate.site, candidate.blueprint) for candidate in self._fitting]

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def planting(self, number: int, taken: set[str]) -> Planting | None:
        """What would be planted at one of them; None if that place is under embargo.

        Args:
            number: which, from 0.
            taken: seeds that are planted already; this one is added.
        """
        index = bisect_right(self._ends, number)
        candidate = self._fitting[index]
        chunk = number - (self._ends[index - 1] if index else 0)
        if _place(candidate, chunk) in self._embargoed:
            return None
        seed = self._state.free_place(candidate.site, taken, chunk, self._chunks(candidate))
        taken.add(seed)
        return Planting(seed, candidate.site, candidate.blueprint)

    def _chunks(self, candidate: Candidate) -> int:
        return self._state.num_chunks[candidate.site]


def choose_plantings(
    openings: Openings, *, at_most: int, race: int, taken: set[str] | None = None
) -> list[Planting]:
    """All openings, or where there are too many to try at once some of them, in turn.

    Those are an even stride that is shifted from race to race.

    Args:
        race: number of the race, from 1.
        taken: seeds that are planted already; what is chosen is added.
    """
    total = len(openings)
    picks: Sequence[int] = range(total)
    if total > at_most:
        shift = (race - 1) % math.ceil(total / at_most)
        picks = [i * total // at_most + shift for i in range(at_most)]
    taken = set() if taken is None else taken
    found = [openings.planting(pick, taken) for pick in picks]
    return [planting for planting in found if planting is not None]


def draw_planting(openings: Openings, draw: Random) -> Planting | None:
    """One opening at random, each as likely as the others; None if there is none."""
    closed: set[int] = set()
    while len(closed) < len(openings):
        number = draw.randrange(len(openings))
        planting = openings.planting(number, set())
        if planting is not None:
            return planting
        closed.add(number)
    return None


def _embargoed(state: State) -> set[Place]:
    return {
        state.place_of(row)
        for row in state.rows
        if row.stage in (Stage.CULLED, Stage.ROLLED_BACK) and row.embargo_epochs_left > 0
    }


def _place(candidate: Candidate, chunk: int) -> Place:
    return candidate.site, chunk, candidate.blueprint
