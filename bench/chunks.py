"""What many seeds at one site cost: one batched kernel against a loop, and against one seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from bench.harness import Effort, Row
from kasmina.blueprints import catalogue
from kasmina.sites.shape import SiteShape
from kasmina.slots.chunked import graft
from kasmina.slots.slot import attach_seed, attached_seeds

TITLE = "Many seeds at one site, forward and backward"

NUM_SEEDS = 32
CHANNELS = 512
BATCH_SIZES = (256, 2048)
MOST = 3.0


def site(shape: SiteShape, numbers: Sequence[int], num_chunks: int) -> nn.Module:
    """An identity that carries blending low-rank seeds, one on each chunk numbered."""
    module = nn.Identity()
    for number in numbers:
        of_seed = shape.chunk(num_chunks)
        body = catalogue["low_rank"].build(of_seed, rng_seed=number)
        for parameter in body.parameters():
            nn.init.normal_(parameter, std=0.1)
        chunk = number, num_chunks
        described = {"seed": f"site/{number}", "blueprint": "low_rank", "shape": of_seed}
        seed = graft(body, chunk=chunk, shielded=False, **described)
        attach_seed("site", module, seed)
        seed.blend(0.5)
    return module


def training(run: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
    """A forward and a backward pass as one action."""
    return lambda: torch.autograd.backward(run(x).sum())


def in_a_loop(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """The same seeds, one after another."""
    seeds = [seed for _, _, seed in attached_seeds(module).values()]

    def run(host: Tensor) -> Tensor:
        for seed in seeds:
            host = seed(host)
        return host

    return run


def rows(effort: Effort) -> Iterator[Row]:
    """Two batch sizes, each beside one seed on the whole site and a loop over the same seeds."""
    for batch_size in BATCH_SIZES:
        shape = SiteShape((batch_size, CHANNELS), -1)
        x = torch.randn(shape, requires_grad=True)
        many = site(shape, range(NUM_SEEDS), NUM_SEEDS)
        whole, part = site(shape, [0], 1), site(shape, [0], NUM_SEEDS)
        kernel = training(many, x)
        claim = f"{NUM_SEEDS} blending seeds on {batch_size} x {CHANNELS}"
        for name, peer, most in (
            ("one seed on the whole site", training(whole, x), MOST),
            ("one seed on a 32nd of it", training(part, x), None),
            ("the same in a loop", training(in_a_loop(many), x), None),
        ):
            found = effort.compare(kernel, peer, num_pairs=11)
            row_id = f"chunks/{batch_size}/{name.replace(' ', '-')}"
            yield Row.timed(row_id, claim, "ms", found, peer=name, most=most)
