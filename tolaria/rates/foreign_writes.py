"""Foreign writes: a seed's learning rate that was set neither by Esper nor by a schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tolaria.rates.schedulers import Pair

_RELATIVE_TOLERANCE: Final = 1e-6
"""Rates are compared across a multiplication and a division, and may be float32 tensors."""


@dataclass(frozen=True)
class ForeignWrite:
    """A rate that somebody else gave a seed's group; it was put back before the next step."""

    seed: str
    found: float
    expected: float

    def __str__(self) -> str:
        return (
            f"the learning rate of {self.seed} was set to {self.found:g} from outside, where "
            f"{self.expected:g} was expected; change its host group's, which it follows"
        )


def is_legitimate(now: Pair, earlier: Iterable[Pair]) -> bool:
    """Whether a change of a seed's rate is one that a schedule of all groups makes.

    A scheduler of torch steps the seed's group as any other, and so does a loop of the user's that
    sets every group, or multiplies every group's rate. Esper's own value wins in the next step, but
    that is nobody's mistake.

    Args:
        now: what was found.
        earlier: what it may have become of: Esper's last values, and every scheduler's.
    """
    return now.seed == now.host or any(
        now.seed == then.seed or _moved_alike(now, then) for then in earlier
    )


def _moved_alike(now: Pair, then: Pair) -> bool:
    """Whether both groups were multiplied by the same number."""
    if then.seed == 0.0 or then.host == 0.0:
        return False
    ours, theirs = now.seed * then.host, now.host * then.seed
    return math.isclose(ours, theirs, rel_tol=_RELATIVE_TOLERANCE)
