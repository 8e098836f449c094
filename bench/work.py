"""How well work, estimated from counts, tells what a candidate costs in time, beside FLOPs.

A clock may not choose what grows, so Tamiyo goes by `kasmina.work`; here it is held against a
clock, for every candidate of three hosts: a forward and backward pass of its body alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bench.harness import Effort, Peer, Quantiles, Row
from bench.hosts import Encoder
from bench.race import spearman
from kasmina.blueprints import catalogue
from kasmina.sites.survey import survey
from tolaria.data.hosts import fashion_host, mnist1d_host

TITLE = "The cost of candidates: work and FLOPs against measured time, rank correlations"
_NUM_TIMINGS = 9
_TIMING_S = 2e-3


class _Candidate(NamedTuple):
    name: str
    flops: int
    work: int
    took_s: float


def rows(effort: Effort) -> Iterator[Row]:
    """One row for each host."""
    yield _row("mnist1d", "MNIST-1D, pointwise", mnist1d_host(), torch.randn(100, 1, 40))
    if not effort.is_quick:
        yield _row("fashion", "Fashion-MNIST, CNN", fashion_host(), torch.rand(128, 1, 28, 28))
        yield _row("encoder", "transformer, width 64", Encoder(64), torch.randn(32, 32, 8))


def _row(name: str, claim: str, model: nn.Module, x: Tensor) -> Row:
    """How far each ranking is from the clock's: 1 less the rank correlation."""
    host_work = survey(model, (x,)).host_work
    host_s = _median_s(lambda: model(x).sum().backward())
    found = _candidates(model, x)
    took_s = {c.name: c.took_s for c in found}
    by_work = 1 - spearman({c.name: float(c.work) for c in found}, took_s)
    by_flops = 1 - spearman({c.name: float(c.flops) for c in found}, took_s)
    shares = sorted((c.work / host_work) / (c.took_s / host_s) for c in found)
    low, high = shares[len(shares) // 10], shares[-1 - len(shares) // 10]
    return Row(
        id=f"work/{name}",
        claim=f"work ranks {len(found)} candidates as a clock does: {claim}",
        unit="1 - rank correlation",
        ours=Quantiles(by_work),
        peer=Peer("FLOPs", by_work / by_flops, by_flops, most=1.0),
        note=f"work's share of the host is {low:.2f} to {high:.2f} of the measured one",
    )


def _candidates(model: nn.Module, x: Tensor) -> list[_Candidate]:
    found = []
    for site in survey(model, (x,)).sites:
        for kind in catalogue.by_name:
            if site.accepts(kind):
                cost, body = site.cost(kind), catalogue[kind].build(site.seed_shape, 0)
                host = torch.randn(tuple(site.shape), requires_grad=True)
                took_s = _median_s(lambda b=body, h=host: (h + b(h)).sum().backward())
                found.append(_Candidate(f"{site.name} {kind}", cost.num_flops, cost.work, took_s))
    return found


def _median_s(action: Callable[[], object]) -> float:
    """CPU seconds of one call: these cores are shared."""
    action()
    timings = []
    for _ in range(_NUM_TIMINGS):
        start_s, num_calls = time.process_time(), 0
        while time.process_time() - start_s < _TIMING_S:
            action()
            num_calls += 1
        timings.append((time.process_time() - start_s) / num_calls)
    return statistics.median(timings)
