"""What a race of 32 candidates costs, beside 32 trials run one by one through the whole host.

Without halving the goal is out of reach on a CPU: what comes after a site has to be computed for
every candidate, forward and backward, and that with the candidates' own layers is most of a trial.
Sharing saves what comes before the site, the calls, and the steps of the optimizer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from bench.harness import Effort, Peer, Quantiles, Row, Target
from bench.hosts import Batch, ConvNet, Encoder, batches, cross_entropy
from kasmina import FunctionTask, OptimizerRecipe, RaceRules, Site, discover
from kasmina.blueprints import catalogue
from kasmina.trials.nursery import Nursery
from kasmina.trials.race_report import RaceReport

TITLE = "The race of trials, CPU seconds on one thread"

_NUM_CANDIDATES: Final = 32
_NUM_STEPS: Final = 200
_NUM_TRAIN: Final = 64
_NUM_HELD_OUT: Final = 32
_ONE_BY_ONE: Final = RaceRules((_NUM_STEPS,), _NUM_CANDIDATES, 1, max_shared_size_bytes=0)
_SHARED: Final = RaceRules((_NUM_STEPS,), _NUM_CANDIDATES, 1, clear_errors=math.inf)
_HALVING: Final = RaceRules((50, _NUM_STEPS), 4, 1)
_GOAL: Final = 0.25
_RECIPE: Final = OptimizerRecipe(torch.optim.AdamW, {"lr": 3e-3})

Entries = dict[str, tuple[Site, str, int]]


def candidates(model: nn.Module, sites: tuple[str, ...], x: Tensor) -> Entries:
    """Eight blueprints at each of four sites; where fewer fit they come round again."""
    found = {site.name: site for site in discover(model, (x,))}
    entries: Entries = {}
    for name in sites:
        kinds = [kind for kind in catalogue.by_name if found[name].accepts(kind)]
        for number in range(_NUM_CANDIDATES // len(sites)):
            entries[f"{name}/{number}"] = found[name], kinds[number % len(kinds)], 1
    return entries


@dataclass(frozen=True)
class Found:
    """What one race cost and found."""

    cpu_s: float
    gains: dict[str, float]
    steps: dict[str, int]
    report: RaceReport

    @property
    def finalists(self) -> list[str]:
        """The candidates that went all the way, the best first."""
        full = [seed for seed, steps in self.steps.items() if steps == _NUM_STEPS]
        return sorted(full, key=lambda seed: -self.gains[seed])


def timed_race(model: nn.Module, entries: Entries, data: Any, rules: RaceRules) -> Found:
    """CPU time, because these cores are shared."""
    nursery = Nursery(model, rng_seed=0)
    train, held_out = data
    start_s = time.process_time()
    nursery.race(FunctionTask(model, cross_entropy), entries, train, held_out, _RECIPE, rules)
    cpu_s = time.process_time() - start_s
    trials = {seed: nursery.trial(seed) for seed in entries}
    report = nursery.race_report
    assert report is not None
    gains = {seed: trial.gain for seed, trial in trials.items() if trial is not None}
    steps = {seed: trial.steps for seed, trial in trials.items() if trial is not None}
    return Found(cpu_s, gains, steps, report)


def spearman(first: dict[str, float], second: dict[str, float]) -> float:
    """Rank correlation of two races' gains."""
    ranks = [torch.tensor(list(gains.values())).argsort().argsort() for gains in (first, second)]
    return float(torch.corrcoef(torch.stack(ranks).double())[0, 1])


def rows(effort: Effort) -> Iterator[Row]:
    """The figures, for a small convolutional network and a small transformer."""
    for host in (ConvNet, Encoder):
        yield from _race_rows(host, host.sites, host.shape)


def _race_rows(
    kind: Callable[[], nn.Module], sites: tuple[str, ...], shape: tuple[int, ...]
) -> Iterator[Row]:
    """One host's race, shared with and without halving, against one by one."""
    torch.manual_seed(0)
    model = kind()
    train, held_out = batches(_NUM_TRAIN, shape, 1), batches(_NUM_HELD_OUT, shape, 2)
    _warm_up(model, train)
    entries, data = candidates(model, sites, train[0][0]), (train, held_out)
    timed_race(model, entries, data, RaceRules((2,), 1))
    raced = timed_race(model, entries, data, _HALVING)
    alone = timed_race(model, entries, data, _ONE_BY_ONE)
    shared = timed_race(model, entries, data, _SHARED)
    again = timed_race(model, entries, data, _HALVING)
    name = kind.__name__
    yield _row(f"{name}/halved", "50 then 200 steps", (raced.cpu_s + again.cpu_s) / 2, alone)
    yield _order_row(name, raced, alone)
    yield _row(f"{name}/shared", "all 200 steps", shared.cpu_s, alone)
    yield Row(
        id=f"race/{name}/ranking",
        claim=f"race of {len(entries)} on {name}, all 200 steps, ranks as one by one",
        unit="1 - rank correlation",
        ours=Quantiles(1 - spearman(shared.gains, alone.gains)),
        target=Target(p50=0.001),
    )


def _row(name: str, how: str, cpu_s: float, alone: Found) -> Row:
    return Row(
        id=f"race/{name}",
        claim=f"race of {len(alone.gains)} on {name.split('/')[0]}, {how}, CPU time",
        unit="s",
        ours=Quantiles(cpu_s),
        peer=Peer("trials one by one", cpu_s / alone.cpu_s, alone.cpu_s, most=_GOAL),
    )


def _order_row(name: str, raced: Found, alone: Found) -> Row:
    """Whether those that went all the way are in the order that trials one by one give them."""
    winner, *_ = finalists = raced.finalists
    by_gain = sorted(finalists, key=lambda seed: -alone.gains[seed])
    place = 1 + sum(gain > alone.gains[winner] for gain in alone.gains.values())
    share = alone.gains[winner] / max(alone.gains.values())
    return Row(
        id=f"race/{name}/order",
        claim=f"race of {len(alone.gains)} on {name}: finalists out of order",
        unit=f"of {len(finalists)}",
        ours=Quantiles(sum(a != b for a, b in zip(finalists, by_gain, strict=True))),
        target=Target(p50=0),
        note=f"the winner is no. {place} with {share:.0%} of the best gain; recordings "
        f"{raced.report.recordings_size_bytes / 2**20:.1f} MiB",
    )


def _warm_up(model: nn.Module, train: list[Batch]) -> None:
    """One epoch: a host that has learnt something, and not all."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for batch in train:
        optimizer.zero_grad()
        cross_entropy(model, batch).backward()
        optimizer.step()
