"""A live seed that faults: one event says why, and the run ends as it would have without it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import Tensor, nn

import kasmina
from kasmina.blueprints import catalogue
from kasmina.slots.slot import attached_seeds
from leyline import Stage
from tests.tolaria import plain_loops
from tests.tolaria.plain_loops import SEED, SITE, faults, listen

one_thread = plain_loops.one_thread


class WearsOut(nn.Conv2d):
    """Sound until it is told to fail."""

    broken = False

    def forward(self, images: Tensor) -> Tensor:
        if self.broken:
            raise ValueError("worn out")
        return super().forward(images)


@pytest.fixture
def wears_out() -> Iterator[None]:
    held = dict(catalogue._blueprints)
    kasmina.register("wears_out", lambda shape: WearsOut(shape.channels, shape.channels, 1))
    yield
    catalogue._blueprints.clear()
    catalogue._blueprints.update(held)


@pytest.mark.usefixtures("wears_out")
def test_one_event_says_why_a_seed_went(tmp_path: Path) -> None:
    """Though the body would fail at every step, there is one fault event, with seed and reason."""
    model = plain_loops.make_host()
    optimizer = plain_loops.adam(model)
    with plain_loops.attach(
        model, optimizer, tmp_path / "run", schedule=((1, SITE, "wears_out"),)
    ) as esper:
        heard = listen(esper)
        plain_loops.run(model, optimizer, esper, 2)
        assert esper.executor.table.stage(SEED) == Stage.GRAFTING
        body = attached_seeds(model)[SEED][2].body
        plain_loops.train_epoch(model, optimizer, esper, plain_loops.TRAIN[:2])
        body.broken = True
        plain_loops.run(model, optimizer, esper, 2)
    (fault,) = faults(heard)
    assert fault.where == f"seed {SEED}"
    assert fault.what == "ValueError: worn out"
    assert attached_seeds(model) == {}
