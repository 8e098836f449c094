"""What keeping seeds' learning rates costs in each step, beside a step of torch's own scheduler."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from bench.harness import Effort, Row, Target
from kasmina import LiveSeed
from tolaria.rates import RateRule, UnifiedLRController

TITLE = "learning rates: one call before each optimizer step and one after it"
_LIMIT_US = 20.0
"""Two per cent of a step of one millisecond: what all of Esper may cost in a plain loop."""


def rows(effort: Effort) -> Iterator[Row]:
    """One row for each number of seeds, with the host's rate constant and moved in every step."""
    for num_seeds in (1, 32):
        for moves in (False, True):
            yield _row(effort, num_seeds, moves=moves)


def _row(effort: Effort, num_seeds: int, *, moves: bool) -> Row:
    optimizer, rates = _grown(num_seeds)
    other, _ = _grown(num_seeds)
    scheduler = lr_scheduler.LinearLR(other, total_iters=10**9)
    other.step()  # torch warns of a scheduler that is stepped first
    host = optimizer.param_groups[0]

    def ours() -> None:
        if moves:
            host["lr"] *= 0.999999
        rates.follow()
        rates.after_step()

    found = effort.compare(ours, scheduler.step, repeats=max(20, 400 // num_seeds))
    return Row.timed(
        f"rates/{num_seeds}/{'moving' if moves else 'constant'}",
        f"rates of {num_seeds} seeds, the host's {'moves in every step' if moves else 'stays'}",
        "us",
        found,
        peer="LinearLR.step",
        target=Target(p50=_LIMIT_US),
    )


def _grown(num_seeds: int) -> tuple[Optimizer, UnifiedLRController]:
    """An optimizer of one layer with that many seeds in it."""
    model = nn.Sequential(nn.Linear(2, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rates = UnifiedLRController(model, [optimizer], rule=RateRule(0.5))
    seeds = [LiveSeed("0", (nn.Parameter(torch.ones(2)),), True) for _ in range(num_seeds)]
    rates.reconcile({f"0/{n}": seed for n, seed in enumerate(seeds)}, lambda _: ())
    return optimizer, rates
