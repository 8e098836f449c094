"""Paired timings: ours and a peer by turns in one process, and the peer against itself."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.harness.quantiles import Quantiles

Action = Callable[[], object]

_QUICK_SHARE = 3
_LEAST_PAIRS = 5


@dataclass(frozen=True)
class Comparison:
    """Ours and the peer over interleaved pairs. Only the ratio means much on a shared machine."""

    ours_us: Quantiles
    peer_us: Quantiles
    ratio: float
    """Ours over the peer: the median of the pairs."""
    band: tuple[float, float]
    """The peer over itself, 10th and 90th percentile: what is noise here."""


@dataclass(frozen=True)
class Effort:
    """How much time a bench may take: a quick look has a third of the pairs, five at least."""

    is_quick: bool = False
    clock_ns: Callable[[], int] = time.perf_counter_ns

    def num(self, full: int) -> int:
        """How many of what a full bench does so many times."""
        return max(min(full, _LEAST_PAIRS), full // _QUICK_SHARE) if self.is_quick else full

    def compare(
        self, ours: Action, peer: Action, *, num_pairs: int = 21, repeats: int = 1
    ) -> Comparison:
        """Time ours between two runs of the peer, again and again.

        Args:
            num_pairs: of a full bench.
            repeats: calls in a row that make one timing; choose it so that one takes a millisecond.
        """
        ours(), peer()
        actions = (peer, ours, peer)
        pairs = range(self.num(num_pairs))
        rows = [tuple(once_us(action, repeats, self.clock_ns) for action in actions) for _ in pairs]
        return Comparison(
            ours_us=Quantiles.of([mine for _, mine, _ in rows]),
            peer_us=Quantiles.of([(before + after) / 2 for before, _, after in rows]),
            ratio=statistics.median(2 * mine / (before + after) for before, mine, after in rows),
            band=band_of([after / before for before, _, after in rows]),
        )


def band_of(same: Sequence[float]) -> tuple[float, float]:
    """What is noise, from ratios of the peer to itself: the 10th and 90th percentile."""
    ordered = sorted(same)
    return ordered[len(ordered) // 10], ordered[-1 - len(ordered) // 10]


def once_us(
    action: Action, repeats: int = 1, clock_ns: Callable[[], int] = time.perf_counter_ns
) -> float:
    """Mean time of one call, in us, over `repeats` calls in a row."""
    start_ns = clock_ns()
    for _ in range(repeats):
        action()
    return (clock_ns() - start_ns) / repeats / 1e3
