"""The snapshot: bit-exact, in place, and nothing that happens later reaches it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from tests.tolaria.plain_loops import (
    TRAIN,
    assert_same,
    assert_same_state,
    copy_of,
    copy_of_state,
    make_host,
    train_epoch,
    train_step,
)
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria.snapshot import Snapshot

OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01),
    "adamw-amsgrad": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, amsgrad=True),
    "nadam": lambda parameters: torch.optim.NAdam(parameters, lr=0.01),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.01, momentum=0.5),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "sgd-momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_restoring_is_bit_exact_in_place_and_can_be_repeated(kind: str) -> None:
    """However far training went on, parameters, buffers and optimizer state are those of the
    snapshot again, in the very same memory, and a second restore still finds them."""
    model = make_host()
    optimizer = OPTIMIZERS[kind](model.parameters())
    train_epoch(model, optimizer)
    tensors, state = copy_of(model), copy_of_state(optimizer)
    places = {name: value.data_ptr() for name, value in model.state_dict().items()}
    snapshot = Snapshot()
    snapshot.take(model, [optimizer], epoch=1, step=4)

    for _ in range(2):
        train_epoch(model, optimizer)
        assert not torch.equal(model.conv.weight, tensors["conv.weight"])
        snapshot.restore(model, [optimizer])

        assert_same(copy_of(model), tensors)
        assert_same_state(copy_of_state(optimizer), state)
        assert {n: v.data_ptr() for n, v in model.state_dict().items()} == places
        assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("kind", ["adam", "sgd-momentum"])
def test_the_same_steps_after_a_restore_give_the_same_weights(kind: str) -> None:
    """Nothing that the next steps depend on is left out, for eight steps."""
    model = make_host()
    optimizer = OPTIMIZERS[kind](model.parameters())
    train_epoch(model, optimizer)
    snapshot = Snapshot()
    snapshot.take(model, [optimizer], epoch=1, step=4)
    rng = torch.get_rng_state()

    ends = []
    for _ in range(2):
        torch.set_rng_state(rng)
        train_epoch(model, optimizer, batches=[*TRAIN, *TRAIN])
        ends.append(copy_of(model))
        snapshot.restore(model, [optimizer])

    assert_same(*ends)


def test_a_second_snapshot_replaces_the_first_without_new_memory() -> None:
    """The storage of a snapshot is kept from one to the next."""
    model = make_host()
    optimizer = OPTIMIZERS["adam"](model.parameters())
    train_epoch(model, optimizer)
    snapshot = Snapshot()
    snapshot.take(model, [optimizer], epoch=1, step=4)
    held = {name: tensor.data_ptr() for name, tensor in snapshot._tensors.items()}
    train_epoch(model, optimizer)
    later = copy_of(model)
    snapshot.take(model, [optimizer], epoch=2, step=8)

    assert {name: tensor.data_ptr() for name, tensor in snapshot._tensors.items()} == held
    assert (snapshot.epoch, snapshot.step) == (2, 8)
    train_epoch(model, optimizer)
    snapshot.restore(model, [optimizer])
    assert_same(copy_of(model), later)


def test_state_that_was_born_later_is_dropped() -> None:
    """A snapshot from before the first step leaves no moments of later steps, old parameters and
    new ones alike."""
    model = make_host()
    optimizer = OPTIMIZERS["adam"](model.parameters())
    snapshot = Snapshot()
    snapshot.take(model, [optimizer], epoch=0, step=0)
    model.head = nn.Sequential(model.head, nn.Linear(3, 3))
    optimizer.add_param_group({"params": list(model.head[1].parameters())})
    train_step(model, optimizer, TRAIN[0])
    assert len(optimizer.state) == len(list(model.parameters()))

    snapshot.restore(model, [optimizer])

    assert not optimizer.state


def test_a_parameter_that_only_the_optimizer_knows_is_kept_too() -> None:
    """The loss's own parameters, which are not the model's, come back with their state, each with
    its own."""
    model = make_host()
    own = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.full((3,), 2.0))]
    optimizer = OPTIMIZERS["adam"]([*model.parameters(), *own])

    def step() -> None:
        optimizer.zero_grad()
        (own[0].sum() ** 2 + own[1].sum() ** 2).backward()
        optimizer.step()

    step()
    values, state = [p.detach().clone() for p in own], copy_of_state(optimizer)
    snapshot = Snapshot()
    snapshot.take(model, [optimizer], epoch=1, step=1)
    step()
    snapshot.restore(model, [optimizer])

    assert all(torch.equal(p, value) for p, value in zip(own, values, strict=True))
    assert_same_state(copy_of_state(optimizer), state)


def test_what_has_another_shape_by_now_is_left_alone() -> None:
    """A place that was planted anew since is none of an old snapshot's business."""
    model = make_host()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    snapshot = Snapshot()
    snapshot.take(model, [optimizer], epoch=1, step=1)
    conv = model.conv.weight.detach().clone()
    model.head = nn.Linear(4, 5)
    head = model.head.weight.detach().clone()
    with torch.no_grad():
        model.conv.weight.add_(1.0)

    snapshot.restore(model, [optimizer])

    assert torch.equal(model.head.weight, head)
    assert torch.equal(model.conv.weight, conv)
