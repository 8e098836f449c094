"""What a race of 32 candidates costs, beside 32 trials run one by one through the whole host.

Without halving the goal is out of reach on a CPU: what comes after a site has to be computed for
every candidate, forward and backward, and that with the candidates' own layers is most of a trial.
Sharing saves what comes before the site, the calls, and the steps of the optimizer.

Run it: python -m bench.race
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from bench.pairs import Row, show
from kasmina import FunctionTask, OptimizerRecipe, RaceRules, Site, discover
from kasmina.blueprints import catalogue
from kasmina.trials.nursery import Nursery
from kasmina.trials.race_report import RaceReport

TITLE = "The race of trials, CPU seconds on one thread"

_NUM_CANDIDATES: Final = 32
_NUM_STEPS: Final = 200
_BATCH: Final = 16
_NUM_TRAIN: Final = 64
_NUM_HELD_OUT: Final = 32
_ONE_BY_ONE: Final = RaceRules((_NUM_STEPS,), _NUM_CANDIDATES, 1, max_shared_size_bytes=0)
_SHARED: Final = RaceRules((_NUM_STEPS,), _NUM_CANDIDATES, 1, clear_errors=math.inf)
_HALVING: Final = RaceRules((50, _NUM_STEPS), 4, 1)
_GOAL: Final = 0.25
_RECIPE: Final = OptimizerRecipe(torch.optim.AdamW, {"lr": 3e-3})

Entries = dict[str, tuple[Site, str, int]]
Batch = tuple[Tensor, Tensor]


class Block(nn.Module):
    """Two convolutions with batch norm and a residual connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.second_norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first_norm(self.first(x)).relu()
        return (x + self.second_norm(self.second(hidden))).relu()


class ConvNet(nn.Module):
    """Four residual blocks."""

    sites = ("blocks.0", "blocks.1", "blocks.2", "blocks.3")
    shape = (1, 8, 8)

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.blocks = nn.ModuleList([Block(channels) for _ in range(4)])
        self.head = nn.Linear(channels, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class Encoder(nn.Module):
    """Four transformer layers."""

    sites = ("layers.layers.0", "layers.layers.1", "layers.layers.2", "layers.layers.3")
    shape = (8, 8)

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embedding = nn.Linear(8, width)
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 4)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.embedding(x)).mean(1))


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """The loss of a (inputs, labels) batch."""
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def batches(num: int, shape: tuple[int, ...], rng_seed: int) -> list[Batch]:
    """Noise with one of four patterns, as it is or negated, for the class."""
    patterns = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0)).sign()
    generator = torch.Generator().manual_seed(rng_seed)
    classes = torch.randint(4, (num, _BATCH), generator=generator)
    signs = torch.randint(2, (num, _BATCH, *[1] * len(shape)), generator=generator) * 2.0 - 1.0
    noise = torch.randn(num, _BATCH, *shape, generator=generator)
    return list(zip(noise + 0.5 * signs * patterns[classes], classes, strict=True))


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


def race_rows(kind: Callable[[], nn.Module], sites: tuple[str, ...], shape: Any) -> list[Row]:
    """One host's race, shared with and without halving, against one by one."""
    torch.manual_seed(0)
    model = kind()
    train, held_out = batches(_NUM_TRAIN, shape, 1), batches(_NUM_HELD_OUT, shape, 2)
    _warm_up(model, train)
    entries, data = candidates(model, sites, train[0][0]), (train, held_out)
    num_kinds = len({blueprint for _, blueprint, _ in entries.values()})
    timed_race(model, entries, data, RaceRules((2,), 1))
    raced = timed_race(model, entries, data, _HALVING)
    alone = timed_race(model, entries, data, _ONE_BY_ONE)
    shared = timed_race(model, entries, data, _SHARED)
    again = timed_race(model, entries, data, _HALVING)
    name = f"{kind.__name__}, {num_kinds} blueprints at {len(sites)} sites"
    return [
        _race_row(name, (raced.cpu_s + again.cpu_s) / 2, raced, alone),
        _shared_row(name, shared, alone),
    ]


def _race_row(name: str, cpu_s: float, raced: Found, alone: Found) -> Row:
    winner, *_ = finalists = raced.finalists
    by_gain = sorted(finalists, key=lambda seed: -alone.gains[seed])
    best = max(alone.gains.values())
    place = 1 + sum(gain > alone.gains[winner] for gain in alone.gains.values())
    found = (
        f"{cpu_s:.1f} s; {len(finalists)} went on, "
        f"{'the same' if finalists == by_gain else 'another'} order; the winner is no. {place} of "
        f"{len(alone.gains)} with {alone.gains[winner] / best:.0%} of the best gain; recordings "
        f"{raced.report.recordings_size_bytes / 2**20:.1f} MiB"
    )
    ratio = cpu_s / alone.cpu_s
    beside = f"one by one {alone.cpu_s:.1f} s, ratio {ratio:.3f}"
    is_met = ratio <= _GOAL and finalists == by_gain
    return Row(
        f"{name}: race, 50 then {_NUM_STEPS} steps", "<= 1/4, same order", found, beside, is_met
    )


def _shared_row(name: str, shared: Found, alone: Found) -> Row:
    correlation = spearman(shared.gains, alone.gains)
    ratio = shared.cpu_s / alone.cpu_s
    found = f"{shared.cpu_s:.1f} s; rank correlation {correlation:.4f}"
    beside = f"one by one {alone.cpu_s:.1f} s, ratio {ratio:.3f}"
    is_met = ratio <= _GOAL and correlation > 0.999
    return Row(f"{name}: all {_NUM_STEPS} steps", "<= 1/4, same ranking", found, beside, is_met)


def _warm_up(model: nn.Module, train: list[Batch]) -> None:
    """One epoch: a host that has learnt something, and not all."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for batch in train:
        optimizer.zero_grad()
        cross_entropy(model, batch).backward()
        optimizer.step()


def rows() -> list[Row]:
    """The figure, for a small convolutional network and a small transformer."""
    torch.set_num_threads(1)
    return [row for host in (ConvNet, Encoder) for row in race_rows(host, host.sites, host.shape)]


if __name__ == "__main__":
    show(TITLE, rows)
