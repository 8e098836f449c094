"""Tensors in plain attributes of the host: no candidate meets what another pass has left there."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kasmina import FunctionTask, RaceRules
from kasmina.trials.shadow import Shadow
from tests.kasmina.growing import cross_entropy
from tests.kasmina.racing import TRAIN, entries, measured, race

FEW = RaceRules((3, 6), 4, batch_pieces=1, keep_share=1.0)


class Remembers(nn.Module):
    """Mixes in the activations of the pass before, as truncated backpropagation does."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(2, 8)
        self.head = nn.Linear(8, 2)
        self.last: Tensor | None = None
        self.sums = [torch.zeros(8)]

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.body(x).relu()
        if self.last is not None:
            hidden = 0.9 * hidden + 0.1 * self.last
        self.last = hidden.detach().mean(0)
        self.sums[0] = self.sums[0] + self.last
        self.seen = self.last
        return self.head(hidden)


def test_such_a_host_can_be_grown() -> None:
    """Every candidate finishes, and its gain does not depend on who else is in the race."""
    model, x = Remembers(), TRAIN[0][0]
    some = entries(model, x, "body:low_rank", "body:norm", "head:norm")
    trials, _ = race(model, some, rules=FEW)
    assert [trial.fault for trial in trials.values()] == [None] * 3
    for seed, entry in some.items():
        alone, _ = race(model, {seed: entry}, rules=FEW)
        assert measured(alone) == measured({seed: trials[seed]})


def test_a_shadow_goes_back_to_its_birth() -> None:
    """Values, None and what was not there; the weights that an LSTM lists stay its own."""
    model = nn.Sequential(Remembers(), nn.LSTM(2, 2))
    shadow = Shadow(FunctionTask(model, cross_entropy))
    host, lstm = shadow.model[0], shadow.model[1]
    host(TRAIN[0][0])
    assert host.last is not None
    weights = list(lstm._flat_weights)
    shadow.restore_buffers()
    assert host.last is None
    assert not hasattr(host, "seen")
    assert torch.equal(host.sums[0], torch.zeros(8))
    assert all(a is b for a, b in zip(weights, lstm._flat_weights, strict=True))
