"""Races at hosts whose tail looks past the site, and at layouts that torch is touchy about."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import kasmina
from kasmina import Executor, FunctionTask, OptimizerRecipe, RaceRules, discover
from leyline import Decision, Germinate, Stage

WIDTH = 16
RECIPE = OptimizerRecipe(torch.optim.AdamW, {"lr": 0.01})


class Residual(nn.Module):
    """What `stem` puts out is looked at again after `block`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(8, WIDTH)
        self.block = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.stem(x)
        return self.head(hidden + self.block(hidden).relu())


class Unused(Residual):
    """Nothing that `spare` puts out reaches the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(8, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        self.spare(x)
        return super().forward(x)


def batches(num: int, rng_seed: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(rng_seed)
    x = torch.randn(num, 32, 8, generator=generator)
    return [(part, (part[:, 0] * part[:, 1] > 0).long()) for part in x]


def loss_fn(model: nn.Module, batch: Any) -> Tensor:
    return functional.cross_entropy(model(batch[0]), batch[1])


def raced(model: nn.Module, max_shared_size_bytes: int, *plants: tuple[str, str]) -> Executor:
    executor = Executor(model, rng_seed=1)
    train = batches(4, 1)
    executor.grounds.open(discover(model, (train[0][0],)))
    commands = tuple(
        Germinate(seed=f"{site}/{n}", site=site, blueprint=kind, cause="test")
        for n, (site, kind) in enumerate(plants)
    )
    executor.apply(Decision(epoch=1, policy="test", cause="test", commands=commands), 1)
    executor.table.end_epoch()
    executor.prove(1)
    rules = RaceRules((4, 8), 1, max_shared_size_bytes=max_shared_size_bytes)
    executor.race(FunctionTask(model, loss_fn), train, batches(2, 2), RECIPE, rules)
    return executor


def test_values_past_the_site_stay_when_other_sites_leave_the_race() -> None:
    """With one candidate going on, whichever it is, no candidate faults, and gains are those of
    passes through the whole host."""
    plants = [("stem", "norm"), ("block", "bottleneck_mlp"), ("block", "low_rank")]
    gains = []
    for size_bytes in (2**28, 0):
        torch.manual_seed(0)
        executor = raced(Residual(), size_bytes, *plants)
        assert executor.trial_faults() == {}
        table = executor.table
        gains.append([table.get(name, "trial_gain") for name in table.names])
    assert gains[0] == pytest.approx(gains[1], rel=1e-3)


@pytest.mark.parametrize("size_bytes", [2**28, 0])
def test_a_site_that_does_not_reach_the_loss_is_named(size_bytes: int) -> None:
    """Its candidate leaves the race with the reason, and the others do not notice."""
    executor = raced(Unused(), size_bytes, ("spare", "low_rank"), ("block", "low_rank"))
    assert list(executor.trial_faults()) == ["spare/0"]
    assert "does not reach the loss" in executor.trial_faults()["spare/0"]


CHANNELS_LAST = """
import torch
from torch import nn
from torch.nn import functional
from kasmina.blueprints import catalogue
from kasmina.sites.shape import SiteShape
from kasmina.slots.chunked import graft
from kasmina.slots.slot import attach_seed
for num_chunks in (1, 2):
    host = nn.Conv2d(1, 8, 3).requires_grad_(False).to(memory_format=torch.channels_last)
    shape = SiteShape((2, 8, 6, 6), 1).chunk(num_chunks)
    for number in range(num_chunks):
        body = catalogue["low_rank"].build(shape, number)
        chunk = number, num_chunks
        seed = graft(body, seed=f"x/{number}", blueprint="low_rank", shape=shape, chunk=chunk,
                     shielded=False)
        attach_seed("x", host, seed)
        seed.blend(1.0)
    x = torch.randn(2, 1, 8, 8).to(memory_format=torch.channels_last)
    host(x).sum().backward()
    assert seed.fault is None
print("sound")
"""


@pytest.mark.slow
def test_channels_last_below_a_frozen_part_does_not_end_the_process() -> None:
    """Torch's group norm crashes there; in a process of its own, since a crash is no exception."""
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", CHANNELS_LAST], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout.strip(), done.returncode) == ("sound", 0), done.stderr


class HoldsHost(nn.Module):
    def __init__(self, live: nn.Module) -> None:
        super().__init__()
        self.live = live
        self.last = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.live(x))


def test_a_body_that_holds_the_host_is_refused_and_shared_ones_are_copied() -> None:
    """A trial would train the live weights; a module that a factory returns twice becomes two."""
    model = Residual()
    kasmina.register("holds_host", lambda shape: HoldsHost(model.block))
    twice = nn.Sequential(nn.Linear(WIDTH, WIDTH))
    kasmina.register("same_again", lambda shape: twice)
    before = {name: p.clone() for name, p in model.named_parameters()}
    weights = twice[0].weight.clone()
    plants = [("block", "holds_host"), ("block", "same_again"), ("stem", "same_again")]
    executor = raced(model, 2**28, *plants)
    stages = [executor.table.stage(f"block/{n}") for n in (0, 1)]
    assert stages == [Stage.CANCELLED, Stage.TRAINING]
    assert executor.trial_faults() == {}
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert torch.equal(twice[0].weight, weights)
