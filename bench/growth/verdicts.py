"""Verdicts: won, tied or lost, from an estimate and what was set as the goal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from bench.growth.statistics import Estimate

Verdict = Literal["won", "tied", "lost", "missing"]

_WORST_FIRST: Final[tuple[Verdict, ...]] = ("lost", "missing", "tied", "won")


class Part(NamedTuple):
    """One claim of a goal."""

    id: str
    verdict: Verdict
    """"missing" while runs are to be done."""
    estimate: Estimate | None
    text: str


def better_by(gain: Estimate, least: float = 0.0) -> Verdict:
    """Whether a gain is `least` or more and surely above 0; lost if it is surely less."""
    if gain.figure >= least and gain.low > 0.0:
        return "won"
    return "lost" if gain.high < least else "tied"


def not_below(gain: Estimate, margin: float = 0.0) -> Verdict:
    """Whether something is not worse by more than `margin`; tied if the runs do not tell."""
    if gain.low >= -margin:
        return "won"
    return "lost" if gain.high < -margin else "tied"


def at_most(share: Estimate, limit: float) -> Verdict:
    """Whether something surely keeps to a limit; lost if it surely does not."""
    if share.high <= limit:
        return "won"
    return "lost" if share.low > limit else "tied"


def always(is_met: bool) -> Verdict:
    """What every run must meet: there is no tie."""
    return "won" if is_met else "lost"


def ranks_well(trial: Estimate, null: Estimate, least: float) -> Verdict:
    """Whether a rank correlation is high enough, and higher than that of the null."""
    if trial.figure >= least and trial.figure > null.figure:
        return "won"
    return "lost" if trial.high < least or trial.high <= null.figure else "tied"


def never_worse(gains: Sequence[float], noise: float) -> Verdict:
    """Whether no run ends below its control; tied if none is so by more than the noise."""
    if min(gains) >= 0.0:
        return "won"
    return "tied" if min(gains) >= -noise else "lost"


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """That of a goal of several parts."""
    return min(verdicts, key=_WORST_FIRST.index)
