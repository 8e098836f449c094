"""The control of a race: the host alone, trained as its candidates are."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from kasmina import FunctionTask, RaceRules
from kasmina.trials.race import cut
from kasmina.trials.shadow import MAX_GRADIENT_NORM, Shadow
from tests.kasmina.growing import Xor, cross_entropy, state_bits
from tests.kasmina.racing import HELD_OUT, RECIPE, TRAIN, entries, run

RULES = RaceRules((3, 6), 2, batch_pieces=1, control=True)


def by_hand(model: nn.Module, num_steps: int) -> tuple[float, float]:
    """What the model itself saves of the held-out loss in so many steps."""
    host = copy.deepcopy(model)
    pieces = cut(Shadow(FunctionTask(model, cross_entropy)), HELD_OUT)

    def losses() -> Any:
        with torch.no_grad():
            return torch.stack([cross_entropy(host.eval(), piece).double() for piece in pieces])

    before = losses()
    trained = [p for p in host.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RECIPE.options["lr"], fused=True)
    for step in range(num_steps):
        optimizer.zero_grad()
        cross_entropy(host.train(), TRAIN[step % len(TRAIN)]).backward()
        nn.utils.clip_grad_norm_(trained, MAX_GRADIENT_NORM)
        optimizer.step()
    difference = before - losses()
    return float(difference.mean()), float(difference.std() / len(pieces) ** 0.5)


@pytest.mark.parametrize("frozen", [(), ("body",)], ids=["whole", "partly frozen"])
def test_it_is_the_host_trained_for_as_many_steps(frozen: tuple[str, ...]) -> None:
    """Bit by bit what training a copy by hand gives; what is frozen in the run stays so, and the
    live model does not move."""
    model = Xor()
    for name in frozen:
        model.get_submodule(name).requires_grad_(False)
    before = state_bits(model.state_dict())
    _, report = run(model, entries(model, TRAIN[0][0], "head:norm"), rules=RULES)
    assert (report.host_gain, report.host_gain_error) == by_hand(model, 6)
    assert report.host_gain != 0.0
    assert state_bits(model.state_dict()) == before


def test_a_host_that_is_not_trained_gains_nothing() -> None:
    """As when adapters alone are grown on a frozen model."""
    model = Xor().requires_grad_(False)
    _, report = run(model, entries(model, TRAIN[0][0], "head:norm"), rules=RULES)
    assert (report.host_gain, report.host_gain_error) == (0.0, 0.0)


def test_without_a_candidate_to_the_end_there_is_none() -> None:
    """Nobody asks what the host would have gained in no steps."""
    model = Xor()
    _, report = run(model, {}, rules=RULES)
    assert math.isnan(report.host_gain)


def test_it_is_not_trained_unless_asked_for() -> None:
    """By default the host is not trained beside its finalists, and the race costs less."""
    model = Xor()
    rules = RaceRules((3, 6), 2, batch_pieces=1)
    _, without = run(model, entries(model, TRAIN[0][0], "head:norm"), rules=rules)
    _, report = run(model, entries(model, TRAIN[0][0], "head:norm"), rules=RULES)
    assert math.isnan(without.host_gain)
    assert 0 < without.flops < report.flops
