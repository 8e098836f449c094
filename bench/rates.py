"""What keeping seeds' learning rates costs in each step, beside a step of torch's own scheduler."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from bench.pairs import Row, compare
from kasmina import LiveSeed
from tolaria.rates import RateRule, UnifiedLRController

TITLE = "learning rates: one call before each optimizer step and one after it"
_LIMIT_US = 20.0
"""Two per cent of a step of one millisecond: what all of Esper may cost in a plain loop."""


def rows() -> list[Row]:
    """One row for each number of seeds, with the host's rate constant and moved in every step."""
    return [_row(num_seeds, moves) for num_seeds in (1, 32) for moves in (False, True)]


def _row(num_seeds: int, moves: bool) -> Row:
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

    found = compare(ours, scheduler.step, repeats=max(20, 400 // num_seeds))
    beside = f"a step of LinearLR over the same groups {found.peer_us:.1f} us: {found.ratio:.2f}x"
    return Row(
        claim=f"seeds: {num_seeds}, the host's rate {'moves in every step' if moves else 'stays'}",
        goal=f"<= {_LIMIT_US:g} us",
        found=f"{found.ours_us:.2f} us",
        beside=beside,
        met=found.ours_us <= _LIMIT_US,
    )


def _grown(num_seeds: int) -> tuple[Optimizer, UnifiedLRController]:
    """An optimizer of one layer with that many seeds in it."""
    model = nn.Sequential(nn.Linear(2, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rates = UnifiedLRController(model, [optimizer], rule=RateRule(0.5))
    seeds = [LiveSeed("0", (nn.Parameter(torch.ones(2)),), True) for _ in range(num_seeds)]
    rates.reconcile({f"0/{n}": seed for n, seed in enumerate(seeds)}, lambda _: ())
    return optimizer, rates
