"""Which candidates sit out the next races because they did clearly badly in the last."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from leyline import Score
from tamiyo.timing import Count, Share

Pair = tuple[str, str]
"""A site and a blueprint."""


@dataclass(frozen=True, kw_only=True)
class RestingRules:
    """What makes a candidate sit out, and for how long."""

    rest_races: Count = 0
    """Races that a blueprint sits out at a site where it did badly; 0: every race is of all."""
    rest_share: Share = 0.1
    """Share of the winner's gain that a candidate must have been within a standard error of."""


class Resting:
    """Pairs of site and blueprint, and the last race that each sits out."""

    def __init__(self) -> None:
        self._until: dict[Pair, int] = {}

    def judged(
        self,
        scores: Sequence[Score],
        failed: Iterable[str],
        best_gain: float | None,
        race: int,
        rules: RestingRules,
    ) -> None:
        """Learn from a race; one without a winner calls everybody back.

        Args:
            scores: of all its candidates.
            failed: names of seeds whose trial failed.
            best_gain: the winner's; None without one.
            race: number of the race, from 1.
        """
        if best_gain is None:
            self._until = {}
            return
        if not rules.rest_races:
            return
        asked = rules.rest_share * best_gain
        bad: set[Pair] = set()
        good: set[Pair] = set()
        faulty = set(failed)
        for score in scores:
            is_bad = score.seed in faulty or score.gain + score.gain_error < asked
            (bad if is_bad and not score.chosen else good).add((score.site, score.blueprint))
        for pair in sorted(bad - good):  # on several chunks, the best of them counts
            self._until[pair] = race + rules.rest_races

    def at(self, race: int) -> frozenset[Pair]:
        """Who sits out this race."""
        return frozenset(pair for pair, until in self._until.items() if race <= until)

    def saved(self) -> list[list[Any]]:
        """As plain values."""
        return [[*pair, until] for pair, until in self._until.items()]

    def load(self, saved: Iterable[Sequence[Any]]) -> None:
        """Go on from saved values."""
        self._until = {(site, blueprint): until for site, blueprint, until in saved}
