"""Chunk seeds: many seeds at one site, each on its own part of the channels, run as one kernel.

Seeds whose bodies are built alike form a group. A group runs layer by layer: the weights of all
its seeds are put side by side, and one grouped convolution or one batched matrix product takes the
place of a loop over the seeds. Alpha is folded into the last layer's weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Final

import torch
from torch import Tensor, nn

from kasmina.guard import attempt
from kasmina.slots.finite_check import FiniteCheck, either
from kasmina.slots.gate import Gate
from kasmina.slots.grafted_seed import GraftedSeed
from kasmina.slots.side_by_side import SideBySide, recipe_of

_MIN_GROUP: Final = 2
"""Seeds below which a group saves nothing."""


class ChunkSeed(GraftedSeed):
    """A seed on one chunk of its site's channels: it reads and extends those alone."""

    roster: Roster | None = None

    @property
    def active(self) -> bool:
        """Whether the seed takes part in the forward pass."""
        return bool(self.__dict__.get("_active", False))

    @active.setter
    def active(self, value: bool) -> None:
        changed = value != self.active
        self.__dict__["_active"] = value
        if changed and self.roster is not None:
            self.roster.regroup()

    @property
    def start(self) -> int:
        """The first of its channels."""
        return self.chunk[0] * self.shape.channels

    def forward(self, host: Tensor) -> Tensor:
        """Extend one chunk of the host's output by itself."""
        if not self.active:
            return host
        axis, stop = self.shape.channel_axis, self.start + self.shape.channels
        part = host.narrow(axis, self.start, self.shape.channels)
        grown = super().forward(part)
        return host if grown is part else host.slice_scatter(grown, axis, self.start, stop)


def graft(body: nn.Module, *, chunk: tuple[int, int] = (0, 1), **described: Any) -> GraftedSeed:
    """A seed for the whole of a site, or for one chunk of it; arguments as of GraftedSeed."""
    kind = GraftedSeed if chunk[1] == 1 else ChunkSeed
    return kind(body, chunk=chunk, **described)


class Roster:
    """Who runs at a site, in which order: groups of chunk seeds, and every other seed alone.

    It is worked out when a seed comes, goes, wakes or faults, never in a forward pass.
    """

    def __init__(self) -> None:
        self.seeds: list[GraftedSeed] = []
        self.turns: list[GraftedSeed | Group] = []

    def enrol(self, seeds: Iterable[GraftedSeed]) -> None:
        """Take over who hangs on the site now, in order of grafting."""
        staying = list(seeds)
        for seed in [*self.seeds, *staying]:
            if isinstance(seed, ChunkSeed):
                seed.roster = self if seed in staying else None
        self.seeds = staying
        self.regroup()

    def regroup(self) -> None:
        """Work out the turns anew.

        Chunks are disjoint, so the order of seeds on different chunks means nothing. Of several
        seeds on one chunk the later reads what the earlier has made: they are never in one group.
        """
        self.turns.clear()
        running = [seed for seed in self.seeds if seed.active or not isinstance(seed, ChunkSeed)]
        for num_chunks, run in groupby(running, key=lambda seed: seed.chunk[1]):
            seeds = list(run)
            self.turns += seeds if num_chunks == 1 else _groups(seeds)


def _groups(seeds: Sequence[GraftedSeed]) -> list[GraftedSeed | Group]:
    """Chunk seeds of one division, those that are built alike together."""
    alike: dict[tuple[int, str], list[GraftedSeed]] = {}
    num_on: Counter[int] = Counter()
    for seed in seeds:
        depth = num_on[seed.chunk[0]]
        num_on[seed.chunk[0]] += 1
        recipe = recipe_of(seed.body, seed.shape) or seed.seed
        alike.setdefault((depth, recipe), []).append(seed)
    turns: list[GraftedSeed | Group] = []
    for _, group in sorted(alike.items(), key=lambda item: item[0][0]):
        turns += [Group(group)] if len(group) >= _MIN_GROUP else group
    return turns


class Group:
    """Chunk seeds whose bodies are built alike: one kernel for all of them."""

    def __init__(self, seeds: Sequence[GraftedSeed]):
        # In the order of their chunks, so that a group of all chunks is the site as it is.
        self.seeds = sorted(seeds, key=lambda seed: seed.chunk[0])
        self._kernel = SideBySide([seed.body for seed in self.seeds], self.seeds[0].shape)
        self._check = FiniteCheck()
        self._is_all = len(self.seeds) == self.seeds[0].chunk[1]
        width = self.seeds[0].shape.channels
        self._channels = torch.cat(
            [torch.arange(width) + seed.chunk[0] * width for seed in self.seeds]
        )

    def __call__(self, host: Tensor) -> Tensor:
        """Extend the chunks of all seeds; if any of them faults, each runs alone and says so."""
        if torch.compiler.is_compiling():
            return self._sum(host, None)[0]
        outcome = None if self._check.seen() else attempt(lambda: self._guarded(host))
        if isinstance(outcome, Tensor):
            return outcome
        grown = host
        for seed in list(self.seeds):
            grown = seed(grown)
        return grown

    def _guarded(self, host: Tensor) -> Tensor | None:
        """The sum; None if it is not finite although the host's output is."""
        gate = Gate(self._blame) if torch.is_grad_enabled() else None
        out, grown = self._sum(host, gate)
        spoilt = self._check.spoilt([grown.detach()], host.detach())
        return None if spoilt is True else either(spoilt, host, out)

    def _sum(self, host: Tensor, gate: Gate | None) -> tuple[Tensor, Tensor]:
        axis = self.seeds[0].shape.channel_axis
        alphas = torch.stack([seed.alpha for seed in self.seeds])
        if self._is_all:
            grown = self._kernel(host, alphas, gate)
            return host + grown.to(host.dtype), grown
        channels = self._channels.to(host.device)
        grown = self._kernel(host.index_select(axis, channels), alphas, gate)
        return host.index_add(axis, channels, grown.to(host.dtype)), grown

    def _blame(self, spoilt: Tensor) -> None:
        for index in spoilt.nonzero().flatten().tolist():
            self.seeds[index].fail("its gradient is not finite")
