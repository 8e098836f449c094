"""Random numbers of growth: the same on every machine, and none of the run's own."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from kasmina import derive_rng_seed, isolated_rng
from tests.kasmina.growing import rng_streams


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: S311 -- the global streams


def test_derived_seeds_are_fixed_for_all_time() -> None:
    """A pure function of the parts' text: a resumed run on another machine gets the same."""
    assert derive_rng_seed(7, "birth", "stem/0") == 1423568985908854635
    assert derive_rng_seed("ab", "c") != derive_rng_seed("a", "bc")
    assert all(0 <= derive_rng_seed(n) < 2**63 for n in range(100))


@pytest.mark.parametrize("fails", [False, True])
def test_a_block_has_its_own_streams(fails: bool) -> None:
    """The same seed draws the same, and the outer streams are put back even after an error."""
    before = rng_streams()
    drawn = []
    for _ in range(2):
        try:
            with isolated_rng(2**63 - 1):
                drawn.append(draw())
                if fails:
                    raise KeyError
        except KeyError:
            pass
    assert drawn[0] == drawn[1]
    assert rng_streams() == before
    assert draw() != drawn[0]
