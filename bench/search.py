"""What each saving in a race costs in the choice: FLOPs beside regret, against trying everything.

The reference trains every candidate for all 200 steps on whole batches and takes the best. Regret
is the share of the best gain in the reference that another way's pick does without there. Each row
changes one thing in the row before it; the last is the default, and has the goal.
"""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.harness import Effort, Peer, Quantiles, Row, Target
from kasmina import FunctionTask, OptimizerRecipe, RaceRules, discover
from kasmina.blueprints import catalogue
from kasmina.trials.nursery import Nursery
from tolaria.data.hosts import digits_host, mnist1d_host
from tolaria.data.splits import Splits, digits, mnist1d

TITLE = "The race of trials: FLOPs against regret, over forks of two hosts while they train"
_STEPS: Final = 200
_ALL: Final = RaceRules((_STEPS,), keep=1_000, batch_pieces=1, clear_errors=math.inf)
_WAYS: Final = {
    "halving": (
        "the best 4 after 50 steps go on",
        RaceRules((50, _STEPS), 4, 1, clear_errors=math.inf),
    ),
    "beaten": ("and not those that are clearly beaten", RaceRules((50, _STEPS), 4, 1)),
    "half-batches": ("half a batch a step", RaceRules((50, _STEPS), 4, 2)),
    "keep-8": ("8 after 50 steps, 2 after 100", RaceRules(keep=8)),
    "default": ("16 after 50 steps, 4 after 100 (the default)", RaceRules()),
}
_EPOCHS: Final = (3, 10)
"""After which a host is forked."""
_MOST_REGRET: Final = 0.1

Batches = list[tuple[Tensor, Tensor]]
Gains = dict[str, float]


class _Fork(NamedTuple):
    """A host in the middle of its training, and the batches of its next epoch."""

    model: nn.Module
    learning_rate: float
    train: Batches
    held_out: Batches


class _Raced(NamedTuple):
    gains: Gains
    flops: int
    pick: str


def rows(effort: Effort) -> Iterator[Row]:
    """One row for each way, over all forks."""
    forks = [fork for rng_seed in (0, 1) for fork in _forks(rng_seed)]
    references = [_race(fork, _ALL) for fork in forks]
    for name, (claim, rules) in _WAYS.items():
        races = [_race(fork, rules) for fork in forks]
        yield _row(name, claim, races, references)


def _row(name: str, claim: str, races: list[_Raced], references: list[_Raced]) -> Row:
    pairs = list(zip(races, references, strict=True))
    share = statistics.mean(race.flops / reference.flops for race, reference in pairs)
    regrets = [_regret(race.pick, reference) for race, reference in pairs]
    whole = statistics.mean(reference.flops for reference in references) / 1e9
    return Row(
        id=f"search/{name}",
        claim=claim,
        unit="regret, mean",
        ours=Quantiles(statistics.mean(regrets)),
        target=Target(p50=_MOST_REGRET) if name == "default" else Target(),
        peer=Peer(f"FLOPs of all {_STEPS} steps, G", share, whole),
        note=f"worst regret {max(regrets):.2f}",
    )


def _regret(pick: str, reference: _Raced) -> float:
    best = max(reference.gains.values())
    return (best - reference.gains[pick]) / best


def _race(fork: _Fork, rules: RaceRules) -> _Raced:
    sites = discover(fork.model, (fork.train[0][0],))
    entries = {
        f"{site.name}/{number}": (site, kind, 1)
        for site in sites
        for number, kind in enumerate(kind for kind in catalogue.by_name if site.accepts(kind))
    }
    nursery = Nursery(fork.model, rng_seed=0)
    recipe = OptimizerRecipe(torch.optim.AdamW, {"lr": fork.learning_rate})
    task = FunctionTask(fork.model, _loss)
    flops = nursery.race(task, entries, fork.train, fork.held_out, recipe, rules)
    trials = [trial for trial in map(nursery.trial, entries) if trial is not None]
    gains = {trial.seed: trial.gain for trial in trials if math.isfinite(trial.gain)}
    farthest = max(trial.steps for trial in trials)
    finalists = [t.seed for t in trials if t.steps == farthest and t.seed in gains]
    return _Raced(gains, flops, max(finalists, key=gains.__getitem__))


def _forks(rng_seed: int) -> Iterator[_Fork]:
    for data, host, batch_size, learning_rate in (
        (mnist1d(), mnist1d_host, 64, 9e-3),
        (digits(), digits_host, 32, 3e-3),
    ):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng_seed)
            model = host()
        yield from _trained(model, data, batch_size, learning_rate, rng_seed)


def _trained(
    model: nn.Module, data: Splits, batch_size: int, learning_rate: float, rng_seed: int
) -> Iterator[_Fork]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    generator = torch.Generator().manual_seed(rng_seed)
    held_out = list(zip(data.val.inputs.split(250), data.val.labels.split(250), strict=True))
    for epoch in range(max(_EPOCHS) + 1):
        order = torch.randperm(len(data.train), generator=generator).split(batch_size)[:-1]
        train = [(data.train.inputs[i], data.train.labels[i]) for i in order]
        if epoch in _EPOCHS:
            yield _Fork(copy.deepcopy(model), learning_rate, train[:64], held_out)
        for batch in train:
            optimizer.zero_grad()
            _loss(model, batch).backward()
            optimizer.step()


def _loss(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])
