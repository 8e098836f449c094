"""Batches that break a step: with guarded steps the run is the one that never met them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import pytest
import torch

from tests.reliability.plugin import Faults
from tests.tolaria.plain_loops import TRAIN, evaluate
from tests.tolaria.plain_loops import one_thread as one_thread
from tests.tolaria.rollback.loops import GROWN, Loop

NUM_EPOCHS: Final = 8
NUM_STRIKES: Final = 10
GUARDED: Final[dict[str, Any]] = {**GROWN, "ramp_epochs": 2, "guard_every_step": True}
KINDS: Final[dict[str, dict[str, Any]]] = {
    "NaN loss": {"poison": math.nan},
    "+Inf loss": {"poison": math.inf},
    "-Inf loss": {"poison": -math.inf},
    "NaN input": {"spoilt": math.nan},
    "NaN gradient": {"gradient": math.nan},
    "Inf gradient": {"gradient": math.inf},
}


def train(loop: Loop, strikes: set[int], spoilt: float = 0.0, **how: float) -> list[float]:
    """The losses of good steps; before each of the numbered ones a bad one is tried."""
    found: list[float] = []
    for _ in range(NUM_EPOCHS):
        for batch in TRAIN:
            if len(found) in strikes:
                loop.step((batch[0] + spoilt, batch[1]), **how)
            found.append(loop.step(batch))
        assert loop.esper is not None
        loop.esper.epoch_boundary(evaluate(loop.model))
    return found


def ended(folder: Path, strikes: set[int], **how: float) -> tuple[list[float], dict[str, Any]]:
    """Losses and fingerprint of a run through the whole graft of its seed."""
    loop = Loop(run_dir=folder, **GUARDED)
    assert loop.esper is not None
    with loop.esper:
        losses = train(loop, strikes, **how)
        picture = loop.fingerprint()
    del picture["executor"]  # counts the batches that were met
    return losses, picture


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[float], dict[str, Any]]:
    return ended(tmp_path_factory.mktemp("undisturbed"), set())


@pytest.mark.fault(10)
@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_batch_leaves_no_trace(
    kind: str,
    undisturbed: tuple[list[float], dict[str, Any]],
    tmp_path: Path,
    faults: Faults,
) -> None:
    """Wherever ten of them strike, while a seed is born, grafted and judged: every loss and the
    end are those of the run that skips them. (The first epoch, whose batches are counted to tell
    how many steps a ramp has, is left alone.)"""
    strikes = set(faults.random.sample(range(len(TRAIN), NUM_EPOCHS * len(TRAIN)), NUM_STRIKES))
    found = ended(tmp_path / "run", strikes, **KINDS[kind])
    assert found[0] == undisturbed[0]
    assert found[1] == undisturbed[1]
    assert all(map(math.isfinite, found[0]))
    assert all(torch.isfinite(v).all() for v in _tensors(found[1]["weights"]))
    faults.injected(NUM_STRIKES)


def _tensors(weights: dict[str, bytes]) -> list[torch.Tensor]:
    floats = [value for value in weights.values() if len(value) % 4 == 0]
    return [torch.frombuffer(bytearray(value), dtype=torch.float32) for value in floats]
