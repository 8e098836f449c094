"""The executor: a seed's state, and its place in a forward pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bench.chunks import site, training
from bench.seeds import MANY, SEED, bulk_transition, one_transition, table_of
from kasmina.sites.shape import SiteShape


@pytest.mark.benchmark(group="transitions")
def test_one(benchmark: Any) -> None:
    table = table_of(MANY)
    benchmark(one_transition(table))


@pytest.mark.benchmark(group="transitions")
def test_ten_thousand(benchmark: Any) -> None:
    table = table_of(MANY)
    benchmark(bulk_transition(table, np.arange(MANY)))


@pytest.mark.benchmark(group="records")
def test_record(benchmark: Any) -> None:
    table = table_of(MANY)
    assert benchmark(table.record, SEED, "low_rank")


@pytest.mark.benchmark(group="forward and backward")
@pytest.mark.parametrize("num_seeds", [0, 1, 32])
def test_seeds_at_a_site(benchmark: Any, num_seeds: int) -> None:
    shape = SiteShape((256, 512), -1)
    module = site(shape, range(num_seeds), 32) if num_seeds else nn.Identity()
    benchmark(training(module, torch.randn(shape, requires_grad=True)))
