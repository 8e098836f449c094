"""The rows for a GPU, on whatever machine this is."""

from __future__ import annotations

import pytest
import torch

from bench import gpu
from bench.harness import Effort
from bench.harness.row import Verdict
from tests.tolaria.plain_loops import one_thread as one_thread

TINY = gpu.Size(num_blocks=2, width=16, num_heads=2, vocabulary=50, batch_size=16, length=8)


def test_every_row_is_measured_where_there_is_a_device() -> None:
    """A run grows a seed in every block to a fossil, and each row has its time and its peer."""
    rows = list(gpu.rows_on(torch.device("cpu"), TINY, Effort(is_quick=True)))
    assert [row.id for row in rows] == [f"gpu/{name}" for name in gpu._CLAIMS]
    for row in rows:
        assert row.ours is not None
        assert row.peer is not None
        assert row.peer.ratio > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_the_same_rows_say_so() -> None:
    """None is left out, and none is called met."""
    rows = list(gpu.rows(Effort(is_quick=True)))
    assert [row.id for row in rows] == [f"gpu/{name}" for name in gpu._CLAIMS]
    assert {row.verdict for row in rows} == {Verdict.NOT_MEASURED}
    assert {row.missing for row in rows} == {"no GPU here"}


def test_the_transformer_is_of_the_size_that_is_claimed() -> None:
    """124 million parameters, tokens and all."""
    with torch.device("meta"):
        model = gpu.Transformer(gpu.Size())
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    assert round(num_parameters / 1e6) == 124
