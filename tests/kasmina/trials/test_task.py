"""Copies of a model: complete, without gradients, and refused by name when not to be had."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, nn

from kasmina import FunctionTask, copy_module
from leyline import TrialError
from tests.kasmina.growing import everything, state_bits
from tests.kasmina.hosts import HOSTS, Host


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_a_copy_is_equal_and_shares_nothing(host: Host) -> None:
    """Equal weights, buffers and modes, no gradients, no memory in common; the model unmoved."""
    model, x = host.build(), host.example()
    model(x).sum().backward()
    before = everything(model)
    copied = copy_module(model)
    assert everything(model) == before
    assert state_bits(copied.state_dict()) == before["state"]
    assert all(p.grad is None for p in copied.parameters())
    theirs = {p.data_ptr() for p in model.state_dict().values()}
    assert theirs.isdisjoint(p.data_ptr() for p in copied.state_dict().values())


class Remembers(nn.Linear):
    """Keeps its last activation, which deepcopy alone refuses."""

    last: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.last = super().forward(x)
        return self.last


def test_a_remembered_activation_is_no_reason_to_give_up() -> None:
    """It is copied without its graph; the live one keeps it."""
    model = Remembers(2, 2)
    model(torch.ones(1, 2))
    copied = copy_module(model)
    assert torch.equal(copied.last, model.last)
    assert copied.last.grad_fn is None
    assert model.last.grad_fn is not None


def test_what_cannot_be_copied_is_named() -> None:
    """The error says which model, why, and what to do."""
    model = Remembers(2, 2)
    model.lock = threading.Lock()  # type: ignore[assignment] # what cannot be copied
    with pytest.raises(TrialError, match=r"Remembers cannot be copied .*lock.*policy='hold'"):
        copy_module(model)


class Secretive(nn.Linear):
    """Refuses to be copied with an error that copies do not usually give."""

    def __deepcopy__(self, memo: dict[int, object]) -> nn.Module:
        raise KeyError("keep out")


def test_whatever_a_copy_raises_is_named() -> None:
    """A user's own code may fail in any way, and the run goes on without trials."""
    with pytest.raises(TrialError, match=r"Secretive cannot be copied \(KeyError: 'keep out'\)"):
        copy_module(Secretive(2, 2))


def test_a_task_without_a_loss_says_so() -> None:
    """No loss_fn means no trial, by name."""
    task = FunctionTask(nn.Linear(2, 2), None)
    with pytest.raises(TrialError, match="no loss_fn was given"):
        task.loss(task.copy(), torch.ones(1, 2))
