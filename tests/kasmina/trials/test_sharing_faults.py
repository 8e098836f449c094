"""Candidates that fail in a group: nobody else is touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import kasmina
from kasmina import RaceRules
from kasmina.blueprints import Blueprint, catalogue
from tests.kasmina.growing import Xor
from tests.kasmina.racing import RULES, TRAIN, assert_close, entries, measured, run, whole


class Breaks(nn.Module):
    """Sound until its weight has moved far enough, then it does something terrible."""

    def __init__(self, deed: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(8))
        self.calls = 0
        self.deed = deed

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.weight if self.calls < 12 else self.deed(x * self.weight)


class Bomb(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise ZeroDivisionError("in backward")


@pytest.fixture(params=["raises", "backward", "infinite", "draws"])
def broken(request: pytest.FixtureRequest) -> Iterator[str]:
    deeds: dict[str, Callable[[Tensor], Tensor]] = {
        "raises": lambda x: x / (1 // 0),
        "backward": Bomb.apply,
        "infinite": lambda x: x * torch.inf,
        "draws": lambda x: x + 0 * torch.rand(()),
    }
    held = dict(catalogue._blueprints)
    kasmina.register("broken", lambda shape: Breaks(deeds[request.param]))
    yield request.param
    catalogue._blueprints.clear()
    catalogue._blueprints.update(held)


def test_a_fault_in_a_group_touches_nobody_else(broken: str) -> None:
    """The others end as without it; what is wrong with it is what is wrong with it alone."""
    torch.manual_seed(0)
    model = Xor()
    some = entries(model, TRAIN[0][0], "body:low_rank", "body:broken", "body:bottleneck_mlp")
    rules = RaceRules((20,), 3)
    shared, _ = run(model, some, rules=rules)
    alone, _ = run(model, some, rules=whole(rules))
    outcome, expected = shared.pop("body/1"), alone.pop("body/1")
    assert (outcome.fault, outcome.steps) == (expected.fault, expected.steps)
    assert (outcome.fault is None) == (broken == "draws")
    assert_close(shared, alone)


def test_a_trusted_candidate_that_draws_numbers_makes_all_run_alone() -> None:
    """Each trial has a stream of its own, so nobody's numbers depend on who else is there."""
    torch.manual_seed(0)
    model = Xor()
    held = dict(catalogue._blueprints)
    noisy = Blueprint("noisy", lambda shape: Breaks(nn.Dropout(0.5)), risk=catalogue["norm"].risk)
    catalogue.register(noisy)
    some = entries(model, TRAIN[0][0], "body:low_rank", "body:noisy")
    shared, report = run(model, some)
    alone, _ = run(model, some, rules=whole(RULES))
    catalogue._blueprints.clear()
    catalogue._blueprints.update(held)
    assert measured(shared) == measured(alone)
    assert "random numbers were drawn" in report.reasons["body/1"]
