"""The ranking of the candidates by what races told of them: later races are of the best alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from leyline import Score
from tamiyo.timing import Count

Pair = tuple[str, str]
"""A site and a blueprint."""


@dataclass(frozen=True, kw_only=True)
class RankingRules:
    """How many of the candidates go on trial again."""

    narrow_to: Count = 8
    """Candidates of every race after the first: those that ranked best and, while there are any, up
    to a quarter that were never tried; 0: all of them, every time."""


class Ranking:
    """Pairs that were tried, the best first."""

    def __init__(self) -> None:
        self._order: list[Pair] = []

    def judged(self, scores: Sequence[Score], failed: Iterable[str]) -> None:
        """Learn from a race: its candidates come first, or last if none of them won.

        After a race without a winner the next one is thus of those that come next.

        Args:
            scores: of all its candidates.
            failed: names of seeds whose trial failed.
        """
        faulty = set(failed)
        # Who was trained on longer was among the best where the others left.
        best_first = sorted(scores, key=lambda s: (s.seed in faulty, -s.steps, _badness(s)))
        raced = list(dict.fromkeys((score.site, score.blueprint) for score in best_first))
        others = [pair for pair in self._order if pair not in set(raced)]
        won = any(score.chosen for score in scores)
        self._order = raced + others if won else others + raced

    def split(self, fitting: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
        """Those that were tried, the best first, and those that never were.

        Args:
            fitting: every pair that could be planted now.
        """
        rank = {pair: place for place, pair in enumerate(self._order)}
        known = sorted((pair for pair in fitting if pair in rank), key=rank.__getitem__)
        return known, [pair for pair in fitting if pair not in rank]

    def saved(self) -> list[list[str]]:
        """As plain values."""
        return [list(pair) for pair in self._order]

    def load(self, saved: Iterable[Sequence[str]]) -> None:
        """Go on from saved values."""
        self._order = [(site, blueprint) for site, blueprint in saved]


def _badness(score: Score) -> tuple[bool, float]:
    """What sorts a better gain before a worse one, and what was not measured last."""
    unmeasured = score.gain != score.gain
    return unmeasured, 0.0 if unmeasured else -score.gain
