"""FLOPs: what torch counts, on grown models too."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from kasmina import count_flops
from kasmina.trials.flops import FlopLedger
from tests.kasmina.growing import Xor, grow

X = torch.randn(4, 2)


def test_the_count_is_torchs_own() -> None:
    """Forward and backward of a host."""
    model = Xor()
    with FlopCounterMode(display=False) as counter:
        model(X).sum().backward()
    assert count_flops(lambda: model(X).sum().backward()) == counter.get_total_flops() > 0


def test_seeds_live_through_a_count() -> None:
    """Of two seeds on one path both backward passes are counted, and neither faults."""
    model = Xor()
    seeds = [grow(model, site, X, alpha=1.0) for site in ("body", "head")]
    host = count_flops(lambda: Xor()(X).sum().backward())
    grown = count_flops(lambda: model(X).sum().backward())
    assert [seed.fault for seed in seeds] == [None, None]
    assert all(p.grad is not None for seed in seeds for p in seed.parameters())
    assert grown > host


def test_a_ledger_enters_every_run_and_counts_the_first() -> None:
    """Two runs of one kind are twice the first's FLOPs, with what the second would have had."""
    model, ledger = Xor(), FlopLedger()
    one = count_flops(lambda: model(X))
    for rows in (4, 8):
        ledger.run("forward", lambda rows=rows: model(X.repeat(rows // 4, 1)))
    assert (ledger.of("forward"), ledger.total) == (one, 2 * one)
    ledger.run_bare("again", lambda: model(X))
    assert ledger.total == 4 * one
    assert ledger.of("never") == 0
