"""Ramps: many seeds, each by its own strategy, in the seeds and in the table alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from kasmina.grafting.ramps import Ramps
from kasmina.grafting.strategies import STRATEGIES, GraftingRecipe
from kasmina.lifecycle.seed_table import SeedTable
from kasmina.slots.grafted_seed import GraftedSeed
from kasmina.slots.slot import attach_seed
from tests.kasmina.growing import bits, discover, wake

X = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))


class Bed:
    """A host with a seed for each strategy, all on one site, and their ramps of 12 steps."""

    def __init__(self, strategies: Sequence[str] = tuple(STRATEGIES)) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 2))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.003)
        self.table, self.held = SeedTable(), {}
        self.ramps = Ramps(self.table)
        shape = discover(self.model, (X,))[0].shape
        for number, strategy in enumerate(strategies):
            name = f"0/{number}"
            body = wake(nn.Linear(6, 6), number)
            seed = GraftedSeed(body, seed=name, blueprint="linear", shape=shape)
            attach_seed("0", self.model[0], seed)
            self.table.add(name, 0)
            self.held[name] = (self.model[0], seed)
            self.ramps.begin(name, 12, GraftingRecipe(strategy), self.model[0])

    def train_step(self) -> dict[str, str]:
        self.optimizer.zero_grad()
        loss = self.model(X).square().mean()
        loss.backward()
        self.optimizer.step()
        return self.ramps.step(self.held, float(loss.detach()))

    def alphas(self) -> list[float]:
        return [self.table.get(name, "alpha") for name in self.held]


def test_every_strategy_takes_its_seed_from_zero_to_one() -> None:
    """Table, buffer and strategy agree after every step; the ends are exact."""
    bed = Bed()
    assert bed.alphas() == [0.0] * 5
    assert [bed.table.get(name, "grafting_strategy") for name in bed.held] == [0, 1, 2, 3, 4]
    for _ in range(100):
        assert bed.train_step() == {}
        for name, (_, seed) in bed.held.items():
            assert float(seed.alpha) == bed.table.get(name, "alpha")
            assert seed.active is (float(seed.alpha) > 0.0)
    assert bed.alphas() == [1.0] * 5
    assert len(bed.ramps) == 5
    for name in bed.held:
        bed.ramps.end(name)
    assert len(bed.ramps) == 0


@pytest.mark.parametrize("saved_at", [0, 1, 5, 9])
def test_a_resumed_run_has_the_same_bits(saved_at: int) -> None:
    """Ramps saved after any step and loaded into new ones go on alike, drift included."""
    twins = Bed(), Bed()
    courses: list[list[Any]] = [[], []]
    for step in range(16):
        if step == saved_at:
            state = twins[1].ramps.state_dict()
            twins[1].ramps = Ramps(twins[1].table)
            twins[1].ramps.load_state_dict(state)
        for bed, course in zip(twins, courses, strict=True):
            bed.train_step()
            course.append((bed.alphas(), bits(bed.model[0].weight)))
    assert courses[0] == courses[1]


def test_a_failed_graft_is_told_once_and_counted() -> None:
    """Three losses that are not finite stop what looks at the loss; the others go on."""
    bed = Bed()
    bed.train_step()
    told = [bed.ramps.step(bed.held, math.nan) for _ in range(5)]
    names = dict(zip(STRATEGIES, bed.held, strict=True))
    failed = {names[strategy] for strategy in ("momentum", "adaptive", "stability")}
    assert [set(faults) for faults in told] == [set(), set(), failed, set(), set()]
    assert all("the loss is nan" in text for text in told[2].values())
    errors = {name: bed.table.get(name, "error_count") for name in bed.held}
    assert errors == {name: 3 if name in failed else 0 for name in bed.held}
    resumed = Ramps(bed.table)
    resumed.load_state_dict(bed.ramps.state_dict())
    before = bed.alphas()
    assert resumed.step(bed.held, 1.0) == {}
    assert bed.alphas()[2:] == before[2:]
    assert bed.alphas()[0] > before[0]


def test_a_new_life_starts_over() -> None:
    """A seed that is grafted again begins at 0 without errors, by the new recipe."""
    bed = Bed()
    for _ in range(3):
        bed.ramps.step(bed.held, math.nan)
    name = list(bed.held)[2]
    bed.ramps.begin(name, 4, GraftingRecipe(), bed.model[0])
    assert bed.table.get(name, "error_count") == 0
    assert bed.table.get(name, "grafting_strategy") == 0
    assert bed.table.get(name, "alpha") == 0.0
    bed.train_step()
    assert bed.table.get(name, "alpha") == 0.25
    assert len(bed.ramps) == 5


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_at_alpha_one_the_host_keeps_its_gradient(strategy: str) -> None:
    """Gradients of the host below a finished graft are autograd's of host + body(host)."""
    bed = Bed(strategies=(strategy,))
    for _ in range(60):
        bed.train_step()
    assert bed.alphas() == [1.0]
    (host, seed) = bed.held["0/0"]
    gradients = []
    below = nn.functional.linear(X, host.weight, host.bias)
    for hidden in (host(X), below + seed.body(below)):
        bed.optimizer.zero_grad()
        bed.model[1](hidden).square().mean().backward()
        gradients.append([bits(host.weight.grad), bits(host.bias.grad)])
        assert float(host.weight.grad.abs().sum()) > 0
    assert gradients[0] == gradients[1]
