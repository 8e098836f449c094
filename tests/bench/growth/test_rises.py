"""A graft's own harm is measured apart from training: at every quarter of its alpha."""

from __future__ import annotations

import pytest
from torch import nn

from bench.growth.rises import losses_of_change
from kasmina.slots.birth import build_seed
from kasmina.slots.grafted_seed import GraftedSeed
from kasmina.slots.slot import attach_seed
from leyline import SeedReport, Stage
from tests.bench.growth.tiny import tiny_task


def grafted(model: nn.Module) -> GraftedSeed:
    """A harmful seed at alpha 0, at the first site of the tiny host."""
    seed = build_seed(
        model,
        "0",
        seed="0/0",
        blueprint="conv",
        shape=tiny_task().sites[0].seed_shape,
        chunk=(0, 1),
        rng_seed=0,
    )
    for parameter in seed.parameters():
        nn.init.constant_(parameter, 3.0)
    attach_seed("0", model.get_submodule("0"), seed)
    return seed


def report(was: Stage, now: Stage) -> SeedReport:
    """One transition of it."""
    return SeedReport(0, "0/0", "0", "conv", int(was), int(now), 68, 0.0, "a test")


def test_every_quarter_of_alpha_is_looked_at() -> None:
    """The losses are those of the network at 0, 1/4, 1/2, 3/4 and 1; the live one stays at 0."""
    task = tiny_task()
    model = task.host()
    seed = grafted(model)
    found = losses_of_change(task, model, [report(Stage.TRAINING, Stage.GRAFTING)])
    assert float(seed.alpha) == 0.0
    expected = []
    for alpha in (0.0, 0.25, 0.5, 0.75, 1.0):
        seed.blend(alpha)
        expected.append(task.score(model, task.splits.val).loss)
    assert found == pytest.approx(expected)
    assert max(found) > found[0]


def test_a_cull_is_looked_at_as_it_is() -> None:
    """What was taken out is not blended in again."""
    task = tiny_task()
    model = task.host()
    found = losses_of_change(task, model, [report(Stage.EVALUATING, Stage.CULLED)])
    assert found == [task.score(model, task.splits.val).loss]


def test_other_transitions_change_nothing() -> None:
    """So nothing is measured, which would cost a validation pass."""
    task = tiny_task()
    moves = [report(Stage.GERMINATED, Stage.TRAINING), report(Stage.GRAFTING, Stage.STABILIZATION)]
    assert losses_of_change(task, task.host(), moves) == []
