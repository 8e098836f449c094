"""Counterfactuals: exactly the difference of two evaluations, and the live model stays as it is."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kasmina import FunctionTask
from kasmina.slots.slot import attached_seeds
from kasmina.trials.counterfactual import MIN_PAIRS, counterfactual_gains
from kasmina.trials.flops import FlopLedger, count_flops
from kasmina.trials.race import cut
from kasmina.trials.shadow import Shadow
from tests.kasmina.growing import Raises, cross_entropy, everything, grow
from tests.kasmina.hosts import HOSTS, ResNet

X = HOSTS["resnet"].example()
HELD_OUT = [(X + shift, torch.tensor([0, 1, 2, 3])) for shift in range(4)]
ROWS = [(x[n : n + 1], y[n : n + 1]) for x, y in HELD_OUT for n in range(4)]
"""The pieces that so few rows are cut into."""


def losses(model: nn.Module, *off: str) -> Tensor:
    """By hand, on a copy: every row's loss in eval mode with some seeds at alpha 0."""
    copied = copy.deepcopy(model).eval()
    for name in off:
        attached_seeds(copied)[name][2].blend(0.0)
    with torch.no_grad():
        return torch.stack([cross_entropy(copied, row).double() for row in ROWS])


def test_it_is_the_difference_of_two_evaluations_by_hand() -> None:
    """Mean and standard error of loss without minus loss as it is, each seed by itself."""
    model = ResNet()
    for site, number in (("stem", 0), ("blocks.0", 0), ("blocks.0", 1)):
        grow(model, site, X, alpha=1.0, blueprint="conv", number=number)
    names = list(attached_seeds(model))
    gains = counterfactual_gains(FunctionTask(model, cross_entropy), names, HELD_OUT, FlopLedger())
    assert list(gains) == names
    for name, (gain, error) in gains.items():
        difference = losses(model, name) - losses(model)
        assert gain == float(difference.mean()) != 0.0
        assert error == float(difference.std() / len(ROWS) ** 0.5)


def test_the_live_model_is_untouched() -> None:
    """Weights, buffers, gradients, modes, activity and random streams are as before."""
    model = ResNet()
    seed = grow(model, "stem", X, alpha=1.0)
    cross_entropy(model, HELD_OUT[0]).backward()
    before = everything(model)
    counterfactual_gains(FunctionTask(model, cross_entropy), ["stem/0"], HELD_OUT, FlopLedger())
    assert everything(model) == before
    assert seed.active


@pytest.mark.parametrize("order", [["stem/0", "stem/1"], ["stem/1", "stem/0"]])
def test_a_seed_that_is_out_is_worth_nothing_and_stays_out(order: list[str]) -> None:
    """Measuring an inactive seed gives 0 and does not bring it into the next measurement."""
    model = ResNet()
    grow(model, "stem", X, alpha=1.0, number=0)
    out = grow(model, "stem", X, alpha=1.0, number=1, blueprint="conv")
    out.fault = "broken"
    out.blend(1.0)
    gains = counterfactual_gains(FunctionTask(model, cross_entropy), order, HELD_OUT, FlopLedger())
    assert gains["stem/1"] == (0.0, 0.0)
    assert gains["stem/0"][0] == float((losses(model, "stem/0") - losses(model)).mean())


def test_a_seed_that_fails_on_the_way_is_worth_nothing() -> None:
    """Its fault in the first pass leaves the others' figures right."""
    model = ResNet()
    grow(model, "stem", X, alpha=1.0, number=0)
    grow(model, "stem", X, alpha=1.0, number=1, body=Raises())
    names = ["stem/1", "stem/0"]
    gains = counterfactual_gains(FunctionTask(model, cross_entropy), names, HELD_OUT, FlopLedger())
    assert gains["stem/1"][0] == 0.0
    assert gains["stem/0"][0] == float((losses(model, "stem/0") - losses(model)).mean())


def test_too_few_pairs_are_no_measurement() -> None:
    """A loss that looks across rows keeps its batches whole; of a few the error means nothing."""

    def across(model: nn.Module, batch: Any) -> Tensor:
        out = model(batch[0])
        return (out @ out.T).softmax(1).diagonal().log().neg().mean()

    model = ResNet()
    grow(model, "stem", X, alpha=1.0, blueprint="conv")
    for num_batches in (MIN_PAIRS - 1, MIN_PAIRS):
        held_out = [HELD_OUT[n % len(HELD_OUT)] for n in range(num_batches)]
        task = FunctionTask(model, across)
        gains = counterfactual_gains(task, ["stem/0"], held_out, FlopLedger())
        assert len(gains) == (num_batches >= MIN_PAIRS)


def test_flops_are_those_of_all_passes() -> None:
    """One pass as it is and one for each seed, over every piece, and the counted one."""
    model = ResNet()
    grow(model, "stem", X, alpha=1.0, blueprint="conv")
    ledger, task = FlopLedger(), FunctionTask(model, cross_entropy)
    shadow = Shadow(task)
    pieces = cut(shadow, HELD_OUT)
    of_one = count_flops(lambda: shadow.held_out_losses(pieces[:1]))
    counterfactual_gains(task, ["stem/0"], HELD_OUT, ledger)
    assert ledger.total == of_one * (2 * len(pieces) + 1) > 0


class CancelsInEval(nn.Module):
    """Leaves nothing of the host's output in eval, by which the loss below divides."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (0.0 if self.training else -1.0)


def scaled_loss(model: nn.Module, batch: Any) -> Tensor:
    return cross_entropy(model, batch) / model.stem(batch[0]).abs().mean()


def test_a_seed_that_breaks_eval_is_worth_minus_infinity() -> None:
    """Finite without the seed and not finite with it is the clearest veto there is."""
    model = ResNet()
    seed = grow(model, "stem", X, alpha=1.0)
    seed.body = CancelsInEval()

    gains = counterfactual_gains(
        FunctionTask(model, scaled_loss), ["stem/0"], HELD_OUT, FlopLedger()
    )

    assert gains == {"stem/0": (-torch.inf, 0.0)}
