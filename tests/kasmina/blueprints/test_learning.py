"""Every built-in blueprint can learn what another of its kind does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kasmina.blueprints import Blueprint
from kasmina.blueprints.built_in import BUILT_IN
from kasmina.sites.shape import SiteShape
from tests.kasmina.blueprints.shapes import every_blueprint
from tests.kasmina.growing import wake

IMAGE, SEQUENCE = SiteShape((32, 8, 6, 6), 1), SiteShape((32, 6, 8), -1, causal=True)


def share_left(blueprint: Blueprint, shape: SiteShape, num_steps: int) -> float:
    """Held-out loss after training by the loss at birth; the target is an awake other one's."""
    teacher = wake(blueprint.build(shape, 1), 2).requires_grad_(False)
    student = blueprint.build(shape, 3)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(4)
    held_out = torch.randn(4 * shape[0], *shape[1:], generator=generator)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return nn.functional.mse_loss(student(x), teacher(x))

    with torch.no_grad():
        at_birth = float(loss(held_out))
    for _ in range(num_steps):
        optimizer.zero_grad()
        loss(torch.randn(*shape, generator=generator)).backward()
        optimizer.step()
    with torch.no_grad():
        return float(loss(held_out)) / at_birth


@pytest.mark.slow
@every_blueprint
def test_it_learns_within_150_steps(blueprint: Blueprint) -> None:
    """At least three quarters of the held-out loss are gone, at every shape that it fits."""
    for shape in (IMAGE, SEQUENCE):
        if blueprint.accepts(shape):
            assert share_left(blueprint, shape, 150) < 0.25, shape


def test_the_test_can_fail() -> None:
    """Without training nothing is learnt."""
    assert share_left(BUILT_IN[0], SEQUENCE, 0) == 1.0
