"""What reaches the live model from a copy is found before it does harm."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, nn

from kasmina import live_untouched
from kasmina.sites.live_guard import way_to_live
from leyline import TrialError


class Host(nn.Module):
    """A model with a function of its own, made by the test."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4))
        self.f: object = None

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def method(self, x: Tensor) -> Tensor:
        return self.net(x)


def test_closures_over_the_model_are_named() -> None:
    """A lambda, a default, a closure hook and a wrapped forward that hold the model are found by
    name."""
    one, two, three, four = Host(), Host(), Host(), Host()
    one.f = lambda x: one.net(x)
    two.net[0].register_forward_hook(lambda module, inputs, output: two.net[1](output))
    old = three.net.forward
    three.net.forward = lambda x: old(x) * 1.0  # type: ignore[method-assign]

    four.f = lambda x, *, net=four.net: net(x)

    assert way_to_live(four) == way_to_live(one) == "Host.f"
    assert way_to_live(two) == "net.0._forward_hooks"
    assert way_to_live(three) == "net.forward"


def test_what_is_copied_well_is_left_alone() -> None:
    """Methods, partials, plain functions and hooks that hold nothing of the model pass, as do
    buffers of NaN."""
    host = Host()
    host.f = functools.partial(host.method)
    host.net.g = host.method  # type: ignore[assignment]
    host.net[0].register_forward_hook(lambda module, inputs, output: output * 1.0)

    host.register_buffer("not_set_yet", torch.tensor(torch.nan))

    assert way_to_live(host) is None
    with live_untouched(host):
        host.eval()


def test_a_change_of_the_live_model_is_refused_and_undone() -> None:
    """A dry run that moves the live buffers, as through a global name, is refused; they go back."""
    host = Host().train()
    before = {name: buffer.clone() for name, buffer in host.named_buffers()}

    with pytest.raises(TrialError, match=r"net\.1\."), live_untouched(host):
        host(torch.randn(5, 2))

    assert all(torch.equal(buffer, before[name]) for name, buffer in host.named_buffers())
