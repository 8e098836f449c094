"""Networks that a user's code pairs by position are left alone."""

from __future__ import annotations

import copy

import pytest
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
        found = survey(Averaged(frozen=frozen), (X,))

        named = {site.name for site in found.sites}
        assert not any(name.startswith("net") for name in named)
        assert "head" in named
        assert "average is a copy of net" in found.refused["net.0"]


def test_layers_of_a_stack_and_equal_layers_in_use_are_no_pair() -> None:
    """Alike members of a stack, half of them frozen, and alike projections stay sites."""
    stack = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    stack[0].requires_grad_(False)

    assert [site.name for site in discover(stack, (X,))] == ["0", "1", "2"]


class Tuned(nn.Module):
    """A pretrained body, frozen but for a projection, and a new head of the body's shape."""

    def __init__(self) -> None:
        super().__init__()
        self.key = nn.Linear(4, 4).requires_grad_(False)
        self.query = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4).requires_grad_(False)
        self.head_norm = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head_norm(self.norm(self.query(x) * self.key(x)))


@pytest.mark.parametrize("rng_seed", range(5))
def test_frozen_layers_of_a_tuned_model_are_no_copies(rng_seed: int) -> None:
    """Shapes alone make no pair: layers with other weights, or with fresh norms', are sites."""
    torch.manual_seed(rng_seed)

    assert [site.name for site in discover(Tuned(), (X,))] == ["key", "query", "norm", "head_norm"]


def test_a_frozen_host_has_all_its_sites() -> None:
    """Where nothing trains there is no trained network to keep a copy of."""
    averaged, tuned = Averaged(frozen=True), Tuned()

    found = survey(averaged.requires_grad_(False), (X,))
    assert {"net.0", "net.2", "average.0", "average.2", "head"} <= {s.name for s in found.sites}
    assert not any("copy" in reason for reason in found.refused.values())
    assert len(discover(tuned.requires_grad_(False), (X,))) == 4


class Shared(nn.Module):
    """As T5 has it: a table that nobody calls lends its weight to the one that is called."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Embedding(5, 4)
        self.tokens = nn.Embedding(5, 4)
        self.tokens.weight = self.shared.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.tokens(tokens)


def test_a_tied_weight_is_no_copy() -> None:
    """One weight in two modules cannot fall out of step."""
    assert [site.name for site in discover(Shared(), (torch.arange(3),))] == ["tokens"]
