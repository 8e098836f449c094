"""The guard: whatever a body does wrong becomes a fault in words, and the host's output stands."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from kasmina.guard import proof_fault
from kasmina.slots.slot import attached_seeds
from tests.kasmina.growing import Raises, Returns, bits, grow
from tests.kasmina.hosts import HOSTS, conv_net

HOSTILE = {
    "raises": (Raises(), "ValueError: no luck today"),
    "memory": (Raises(MemoryError), "MemoryError: no luck today"),
    "device_memory": (Raises(torch.OutOfMemoryError), "OutOfMemoryError: no luck today"),
    "wrong_shape": (
        Returns(lambda x: x[:, :1]),
        r"returned shape \(4, 1, 6, 6\) for \(4, 8, 6, 6\)",
    ),
    "would_broadcast": (Returns(lambda x: x.sum()), r"returned shape \(\)"),
    "wrong_dtype": (Returns(lambda x: x.long()), "returned torch.int64"),
    "wrong_device": (Returns(lambda x: x.to("meta")), "on meta"),
    "no_tensor": (Returns(lambda x: (x,)), "returned a tuple, not a tensor"),
    "nothing": (Returns(lambda x: None), "returned a NoneType"),
}
every_fault = pytest.mark.parametrize(("body", "fault"), HOSTILE.values(), ids=HOSTILE)


@every_fault
def test_a_fault_leaves_the_hosts_output(body: nn.Module, fault: str) -> None:
    """The very call that fails returns the host's bits, and the body is not run again."""
    model, x = conv_net(), HOSTS["conv_net"].example()
    bare = bits(model(x))
    seed = grow(model, "stem", x, alpha=0.5, body=body)
    assert bits(model(x)) == bare
    assert seed.fault is not None
    assert not seed.active
    assert re.search(fault, seed.fault)
    seed.body = Returns(lambda h: pytest.fail("it was run again"))
    seed.blend(1.0)
    assert bits(model(x)) == bare


def test_a_fault_of_one_seed_leaves_its_neighbours_alone() -> None:
    """With a faulted seed between them, two good ones give what they give without it."""
    x = HOSTS["conv_net"].example()
    outputs = []
    for numbers in ([0, 1, 2], [0, 2]):
        torch.manual_seed(0)
        model = conv_net()
        for number in numbers:
            body = Raises() if number == 1 else None
            grow(model, "stem", x, alpha=0.5, number=number, body=body)
        outputs.append(bits(model(x)))
        faults = {name: seed.fault for name, (_, _, seed) in attached_seeds(model).items()}
        assert [name for name, fault in faults.items() if fault] == ["stem/1"] * (1 in numbers)
    assert outputs[0] == outputs[1]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_a_nested_host_output_is_a_fault_of_the_seed() -> None:
    """A padding mask seen first in eval takes the seed out and does not break validation."""
    host = HOSTS["transformer"]
    model, x = host.build().eval(), host.example()
    mask = torch.zeros(4, 5, dtype=torch.bool)
    mask[0, 3:] = True
    with torch.no_grad():
        bare = model(x, src_key_padding_mask=mask)
        seed = grow(model, "layers.0", x, alpha=1.0)
        assert bits(model(x, src_key_padding_mask=mask)) == bits(bare)
    assert seed.fault is not None
    assert "nested" in seed.fault


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (Returns(lambda x: x.mul_(2)), "it changes its input in place"),
        (Returns(lambda x: x * torch.nan), "its output is not finite at birth"),
        (Returns(lambda x: x / 0), "its output is not finite at birth"),
        (nn.Identity(), "it has no parameter that can be trained"),
        (nn.Linear(3, 3).requires_grad_(False), "it has no parameter that can be trained"),
        (nn.Linear(3, 4), "it returned shape (2, 4) for (2, 3)"),
        (Raises(), "ValueError: no luck today"),
        (nn.Linear(3, 3), None),
    ],
)
def test_the_proof_finds_what_would_do_harm(body: nn.Module, fault: Any) -> None:
    """In-place change, NaN, infinity, nothing to train, shape and exceptions are told apart."""
    assert proof_fault(body, torch.randn(2, 3)) == fault
