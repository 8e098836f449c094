"""Networks that a user's code pairs by position are left alone."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from kasmina import discover
from kasmina.sites.survey import survey

X = torch.randn(3, 4)


class Averaged(nn.Module):
    """A trained network, a copy of it that nobody calls, and a head of its own."""

    def __init__(self, *, frozen: bool) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
        self.average = copy.deepcopy(self.net).requires_grad_(not frozen)
        self.head = nn.Linear(4, 2)
        self.uses_average = frozen

    def forward(self, x: Tensor) -> Tensor:
        output = self.net(x)
        return self.head(output - self.average(x) if self.uses_average else output)


def test_no_seed_grows_in_one_of_a_pair() -> None:
    """Neither an unused average nor a frozen target loses its pairing; the head is still a site."""
    for frozen in (False, True):
        found = survey(Averaged(frozen=frozen), lambda model: model(X))

        named = {site.name for site in found.sites}
        assert not any(name.startswith("net") for name in named)
        assert "head" in named
        assert "average is a copy of net" in found.refused["net.0"]


def test_layers_of_a_stack_and_equal_layers_in_use_are_no_pair() -> None:
    """Alike members of a stack, half of them frozen, and alike projections stay sites."""
    stack = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    stack[0].requires_grad_(False)

    assert [site.name for site in discover(stack, (X,))] == ["0", "1", "2"]
