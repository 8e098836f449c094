"""The guard's cost: one low-rank seed, forward and backward, behind the wall and without it.

Peer of the same run: the same body in the plain expression host + alpha * body(host), which
contains nothing. A ratio is of the seed alone; a step of a whole network holds much besides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from bench.harness import Effort, Row
from kasmina import SiteShape
from kasmina.blueprints import catalogue
from kasmina.slots.grafted_seed import GraftedSeed

TITLE = "The guard around one low-rank seed, forward and backward"

SIZES = {"small": (16, 64), "medium": (64, 128, 256)}
GOALS = {
    ("small", False): 4.0,
    ("small", True): 10.0,
    ("medium", False): 1.5,
    ("medium", True): 1.5,
}
"""At most so many times the expression; True: with the shield of a body that is not trusted."""
REPEATS = {"small": 40, "medium": 1}


def rows(effort: Effort) -> Iterator[Row]:
    """Both sizes, with the shield that a blueprint of the user gets and without."""
    for name, shielded in GOALS:
        yield _row(effort, name, shielded=shielded)


def _row(effort: Effort, name: str, *, shielded: bool) -> Row:
    sizes, goal = SIZES[name], GOALS[name, shielded]
    shape = SiteShape(sizes, -1)
    body = catalogue["low_rank"].build(shape, rng_seed=1)
    seed = GraftedSeed(body, seed="site/0", blueprint="low_rank", shape=shape, shielded=shielded)
    seed.blend(0.5)
    host = torch.randn(sizes, requires_grad=True)

    def plain(host: Tensor) -> Tensor:
        return host + (seed.alpha * body(host)).to(host.dtype)

    ours, peer = partial(_step, seed, host), partial(_step, plain, host)
    found = effort.compare(ours, peer, num_pairs=41, repeats=REPEATS[name])
    assert seed.fault is None
    return Row.timed(
        f"guard/{name}/{'shielded' if shielded else 'wall'}",
        f"a seed on {list(sizes)}, {'shielded' if shielded else 'the wall alone'}",
        "us",
        found,
        peer="host + alpha * body(host)",
        most=goal,
    )


def _step(seed: Callable[[Tensor], Tensor], host: Tensor) -> None:
    host.grad = None
    torch.autograd.backward(seed(host).sum())
