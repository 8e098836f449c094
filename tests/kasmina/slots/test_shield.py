"""The shield: random streams of its own, and what a body may not touch."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import Tensor, nn

from kasmina.slots.grafted_seed import GraftedSeed
from tests.kasmina.growing import Raises, Returns, bits, rng_streams, wake
from tests.kasmina.towers import WIDTH, Noisy, make
from tests.kasmina.zoo import WIDTH as ZOO_WIDTH
from tests.kasmina.zoo import ZOO


def masks(seed: GraftedSeed, num_calls: int) -> list[bytes]:
    host = torch.ones(4, WIDTH)
    return [bits(seed(host)) for _ in range(num_calls)]


def test_a_shielded_body_has_a_stream_of_its_own() -> None:
    """Its numbers differ from call to call and from seed to seed, and leave the run's alone."""
    body = wake(Noisy())
    before = rng_streams()
    ours = masks(make(body), 3)
    assert rng_streams() == before
    torch.rand(5)
    assert masks(make(body), 3) == ours
    assert len(set(ours)) == 3
    assert masks(make(body, rng_seed=1), 3) != ours


def test_a_resumed_seed_goes_on_with_its_stream() -> None:
    """State dict, copy and pickle go on where the original was; eval calls shift nothing."""
    seed = make(wake(Noisy()))
    masks(seed, 2)
    buffer = io.BytesIO()
    torch.save(seed.state_dict(), buffer)
    buffer.seek(0)
    resumed = make(Noisy(), rng_seed=9)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    twin = copy.deepcopy(seed)
    masks(twin.eval(), 3)
    expected = masks(seed, 3)
    assert masks(resumed, 3) == expected
    assert masks(twin.train(), 3) == expected


def test_a_resumed_seed_stays_out() -> None:
    """A fault travels in the state dict, with whether it was told."""
    seed = make(Raises())
    seed(torch.randn(4, WIDTH))
    resumed = make(Returns(torch.clone))
    resumed.load_state_dict(seed.state_dict())
    assert resumed.fault == seed.fault
    resumed.blend(1.0)
    assert not resumed.active
    assert not resumed.is_fault_told


@pytest.mark.parametrize(
    "name",
    [
        "freezes_itself",
        "resizes_itself",
        "deletes_its_parameter",
        "adds_a_module",
        "hooks_own_parameter",
        "hooks_accumulation",
    ],
)
def test_a_body_is_put_back_into_its_shape(name: str) -> None:
    """So that optimizers, snapshots and state dicts find the parameters they know."""
    body = ZOO[name]()
    body.num_calls = body.strike_at
    before = dict(body.named_parameters())
    shapes = {n: (p.shape, p.requires_grad) for n, p in before.items()}
    seed = make(body)
    seed(torch.randn(16, ZOO_WIDTH))
    assert seed.fault is not None
    after = dict(body.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is parameter for name, parameter in before.items())
    assert {n: (p.shape, p.requires_grad) for n, p in after.items()} == shapes
    assert not any(p._backward_hooks or p._post_accumulate_grad_hooks for p in after.values())


class Grows(Returns):
    """Has no parameter of its own at first."""

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "late"):
            self.late = nn.Parameter(torch.zeros(1))
        return x


def test_a_parameter_that_comes_later_is_a_fault() -> None:
    """Also in a module that had none: a checkpoint with it could not be loaded again."""
    body = nn.Sequential(nn.Linear(WIDTH, WIDTH), Grows(lambda x: x))
    del body[1].weight
    seed = make(body)
    seed(torch.ones(4, WIDTH))
    assert seed.fault == "it changed its own parameters and left it so"
    assert not hasattr(body[1], "late")
