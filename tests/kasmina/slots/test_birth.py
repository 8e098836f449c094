"""Birth: a seed is where and like what its site is, and depends on its RNG seed alone."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import nn

from kasmina.sites.shape import SiteShape
from kasmina.slots.birth import build_seed
from kasmina.slots.chunked import ChunkSeed
from kasmina.slots.grafted_seed import GraftedSeed
from tests.kasmina.growing import rng_streams, state_bits

SHAPE = SiteShape((3, 8), -1)
FLOATS_ON_CPU = {(torch.float32, "cpu")}


def born(model: nn.Module, site: str = "second", **changed: Any) -> GraftedSeed:
    birth = {"blueprint": "bottleneck_mlp", "shape": SHAPE, "chunk": (0, 1), "rng_seed": 7}
    return build_seed(model, site, seed=f"{site}/1", **{**birth, **changed})


def host() -> nn.Module:
    """In single precision, but for one layer; and one on another device."""
    return nn.Sequential(
        OrderedDict(
            first=nn.Linear(8, 8),
            second=nn.Linear(8, 8, dtype=torch.float64),
            act=nn.ReLU(),
            far=nn.Linear(8, 8, device="meta"),
        )
    )


def kinds(seed: GraftedSeed) -> set[tuple[torch.dtype, str]]:
    return {(p.dtype, p.device.type) for p in seed.body.parameters()}


def test_a_seed_is_like_its_site() -> None:
    """Of its device and dtype; where it has no parameter, of those of the model's first, and in a
    model without any, in single precision on the CPU. Alpha is always float32."""
    seeds = {site: born(host(), site) for site in ("second", "act", "far")}
    assert kinds(seeds["second"]) == {(torch.float64, "cpu")}
    assert kinds(seeds["act"]) == kinds(born(nn.Sequential(nn.ReLU()), "0")) == FLOATS_ON_CPU
    assert kinds(seeds["far"]) == {(torch.float32, "meta")}
    assert {seed.alpha.dtype for seed in seeds.values()} == {torch.float32}
    assert seeds["far"].alpha.device.type == "meta"


def test_its_weights_come_from_its_rng_seed() -> None:
    """Whatever was drawn before, and no stream moves."""
    model = host()
    streams = rng_streams()
    first = state_bits(born(model).state_dict())
    assert rng_streams() == streams
    torch.rand(5)
    assert state_bits(born(model).state_dict()) == first
    assert state_bits(born(model, rng_seed=8).state_dict()) != first


def test_it_is_at_alpha_0_and_of_one_chunk_if_so_asked() -> None:
    """It hangs nowhere yet; a chunk's seed is of the kind that reads its chunk alone."""
    whole = born(host())
    part = born(host(), shape=SHAPE.chunk(2), chunk=(1, 2))
    assert (type(whole), type(part)) == (GraftedSeed, ChunkSeed)
    assert (float(whole.alpha), whole.active, whole.seed) == (0.0, False, "second/1")
    assert (part.chunk, part.shape) == ((1, 2), (3, 4))
