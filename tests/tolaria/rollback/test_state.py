"""The state of a run: everything comes back, in place, or nothing does."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR

from kasmina.slots.finite_check import FiniteCheck
from kasmina.slots.slot import attached_seeds
from leyline import RollbackError, Stage
from tamiyo import Controller
from tests.tolaria.plain_loops import (
    SCHEDULE,
    SEED,
    TRAIN,
    Scripted,
    assert_same,
    assert_same_state,
    copy_of,
    copy_of_state,
    make_host,
    train_epoch,
    train_step,
)
from tests.tolaria.plain_loops import one_thread as one_thread
from tests.tolaria.rollback.loops import NUM_STEPS, Loop, NewLoop, parts_of
from tests.tolaria.rollback.loops import new_loop as new_loop
from tolaria.rollback.arena import Arena
from tolaria.rollback.state import Moment, Parts, RunState

OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01),
    "adamw-amsgrad": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, amsgrad=True),
    "nadam": lambda parameters: torch.optim.NAdam(parameters, lr=0.01),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.01, momentum=0.5),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "sgd-momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
}
GROWN = {"schedule": SCHEDULE, "ramp_epochs": 3, "seed_warmup_steps": 40}
"""The seed is in GRAFTING from the end of epoch 2 to that of epoch 5; its rate rises for longer."""


def take(parts: Parts) -> RunState:
    return RunState(Arena(), parts, Moment(1, 4, None))


def loop_of(kind: str, new_loop: NewLoop) -> Loop:
    """A loop in the middle of things; with "grafting" in its kind, a seed's alpha is on its way."""
    if "grafting" not in kind:
        loop = new_loop(kind)
        loop.steps(6)
        return loop
    loop = new_loop(kind, **GROWN)
    for _ in range(2):
        loop.epoch()
    loop.steps(5)
    assert 0.0 < loop.parts.executor.table.get(SEED, "alpha") < 1.0
    return loop


@pytest.mark.parametrize("kind", ["sgd", "adamw", "adamw-scaler", "adamw-grafting-scaler"])
def test_the_next_hundred_steps_are_those_that_followed_the_first_time(
    kind: str, new_loop: NewLoop
) -> None:
    """Momentum or Adam's moments, batch statistics, dropout, noise, a cosine schedule, a gradient
    scaler, and a seed whose alpha rises: bit for bit, in losses and in everything that is kept."""
    loop = loop_of(kind, new_loop)
    state, done = take(loop.parts), loop.num_done
    losses, end = loop.steps(), loop.fingerprint()
    for _ in range(2):
        state.restore(loop.parts)
        loop.num_done = done
        assert loop.steps() == losses
        assert loop.fingerprint() == end
    assert len(losses) == NUM_STEPS


def _later_streams(which: str) -> Callable[[Loop], Callable[[], None]]:
    def later(loop: Loop) -> Callable[[], None]:
        if which == "torch":
            return partial(torch.set_rng_state, torch.get_rng_state())
        if which == "numpy":
            return partial(np.random.set_state, np.random.get_state())
        return partial(random.setstate, random.getstate())

    return later


def _later_tensors(select: Callable[[Loop], list[torch.Tensor]]) -> Any:
    def later(loop: Loop) -> Callable[[], None]:
        held = [(tensor, tensor.detach().clone()) for tensor in select(loop)]

        def put() -> None:
            with torch.no_grad():
                for tensor, value in held:
                    tensor.copy_(value)

        return put

    return later


def _later_state(select: Callable[[Loop], Any]) -> Any:
    def later(loop: Loop) -> Callable[[], None]:
        state = copy.deepcopy(select(loop).state_dict())
        return lambda: select(loop).load_state_dict(state)

    return later


def _later_rates(loop: Loop) -> Callable[[], None]:
    held = [(group, group["lr"]) for group in loop.optimizer.param_groups]
    return lambda: [group.update(lr=lr) for group, lr in held] and None


PIECES: dict[str, Callable[[Loop], Callable[[], None]]] = {
    "parameters": _later_tensors(lambda loop: list(loop.model.parameters())),
    "buffers": _later_tensors(lambda loop: [loop.model.norm.running_mean]),
    "moments": _later_tensors(
        lambda loop: [s["exp_avg_sq"] for s in loop.optimizer.state.values()]
    ),
    "adam's step": _later_tensors(lambda loop: [s["step"] for s in loop.optimizer.state.values()]),
    "rates": _later_rates,
    "schedule": _later_state(lambda loop: loop.schedule),
    "scaler": _later_state(lambda loop: loop.scaler),
    "torch stream": _later_streams("torch"),
    "numpy stream": _later_streams("numpy"),
    "python stream": _later_streams("python"),
    "seeds' table and ramps": _later_state(lambda loop: loop.parts.executor),
    "alpha": _later_tensors(lambda loop: [attached_seeds(loop.model)[SEED][2].alpha]),
}


@pytest.mark.parametrize(
    "piece",
    [
        pytest.param(piece, marks=() if piece in ("moments", "alpha") else pytest.mark.slow)
        for piece in PIECES
    ],
)
def test_each_piece_that_is_left_out_shows(piece: str, new_loop: NewLoop) -> None:
    """The test above can fail: with any one piece as it was later, the next steps or what is kept
    after them are others."""
    loop = loop_of("adamw-grafting-scaler", new_loop)
    state, done = take(loop.parts), loop.num_done
    losses, end = loop.steps(8), loop.fingerprint()
    put_later = PIECES[piece](loop)
    state.restore(loop.parts)
    put_later()
    loop.num_done = done
    assert (loop.steps(8), loop.fingerprint()) != (losses, end)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_restoring_is_bit_exact_in_place_and_can_be_repeated(kind: str) -> None:
    """However far training went on, weights and optimizer state are those of then, in the very
    same memory, with no gradients, and a second restore still finds them."""
    model = make_host()
    optimizer = OPTIMIZERS[kind](model.parameters())
    parts = parts_of(model, [optimizer])
    train_epoch(model, optimizer)
    tensors, moments = copy_of(model), copy_of_state(optimizer)
    places = {name: value.data_ptr() for name, value in model.state_dict().items()}
    state = take(parts)

    for _ in range(2):
        train_epoch(model, optimizer)
        assert not torch.equal(model.conv.weight, tensors["conv.weight"])
        state.restore(parts)

        assert_same(copy_of(model), tensors)
        assert_same_state(copy_of_state(optimizer), moments)
        assert {n: v.data_ptr() for n, v in model.state_dict().items()} == places
        assert all(parameter.grad is None for parameter in model.parameters())


def test_nothing_live_is_ever_the_state_itself() -> None:
    """After a restore into an optimizer that had forgotten its state, steps leave the kept bits
    alone: handing them to load_state_dict would have made them live."""
    model = make_host()
    optimizer = OPTIMIZERS["adam"](model.parameters())
    parts = parts_of(model, [optimizer])
    train_epoch(model, optimizer)
    tensors, moments = copy_of(model), copy_of_state(optimizer)
    state = take(parts)
    for _ in range(2):
        optimizer.state.clear()
        state.restore(parts)
        assert_same(copy_of(model), tensors)
        assert_same_state(copy_of_state(optimizer), moments)
        train_epoch(model, optimizer)


def test_a_rate_that_is_a_tensor_comes_back_in_place() -> None:
    """The very tensor, which a captured step reads, has the value of then, the second time too,
    though schedules write into it."""
    model = make_host()
    optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.01))
    schedule = CosineAnnealingLR(optimizer, T_max=9)
    parts = parts_of(model, [optimizer], [schedule])
    rate = optimizer.param_groups[0]["lr"]
    state, then = take(parts), rate.clone()
    for _ in range(2):
        train_step(model, optimizer, TRAIN[0])
        schedule.step()
        assert not torch.equal(rate, then)
        state.restore(parts)
        assert optimizer.param_groups[0]["lr"] is rate
        assert torch.equal(rate, then)


def test_state_that_was_born_later_is_dropped() -> None:
    """A state from before the first step leaves no moments of later steps."""
    model = make_host()
    optimizer = OPTIMIZERS["adam"](model.parameters())
    parts = parts_of(model, [optimizer])
    state = take(parts)
    train_step(model, optimizer, TRAIN[0])
    state.restore(parts)
    assert not optimizer.state


def test_a_parameter_that_only_the_optimizer_knows_is_kept_too() -> None:
    """The loss's own parameters, which are not the model's, come back with their state, each with
    its own."""
    model = make_host()
    own = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.full((3,), 2.0))]
    optimizer = OPTIMIZERS["adam"]([*model.parameters(), *own])
    parts = parts_of(model, [optimizer])

    def step() -> None:
        optimizer.zero_grad()
        (own[0].sum() ** 2 + own[1].sum() ** 2).backward()
        optimizer.step()

    step()
    values, moments = [p.detach().clone() for p in own], copy_of_state(optimizer)
    state = take(parts)
    step()
    state.restore(parts)

    assert all(torch.equal(p, value) for p, value in zip(own, values, strict=True))
    assert_same_state(copy_of_state(optimizer), moments)


def _other_shape(loop: Loop) -> None:
    loop.model.conv = nn.Conv2d(1, 5, 3)


def _gone(loop: Loop) -> None:
    del loop.model.head


def _other_groups(loop: Loop) -> None:
    loop.optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})


def _other_seed(loop: Loop) -> None:
    seed = attached_seeds(loop.model)[SEED][2]
    name, _ = next(seed.body.named_parameters())
    path, _, last = name.rpartition(".")
    setattr(seed.body.get_submodule(path), last, nn.Parameter(torch.ones(9)))


def _schedule_refuses(loop: Loop) -> None:
    def refuse(state: object) -> None:
        raise KeyError("last_epoch")

    loop.schedule.load_state_dict = refuse  # type: ignore[method-assign]


CHANGES = [_other_shape, _gone, _other_groups, _other_seed, _schedule_refuses]


@pytest.mark.parametrize("change", CHANGES)
def test_what_does_not_fit_any_more_changes_nothing_at_all(
    change: Callable[[Loop], None], new_loop: NewLoop
) -> None:
    """A layer was replaced or taken away, a group was added, a weight of the seed is another, or a
    schedule refuses its state: the error says so, and every weight, rate, stream, seed and row of
    the table is as it was before."""
    loop = loop_of("adamw-grafting-scaler", new_loop)
    state = take(loop.parts)
    loop.steps(3)
    change(loop)
    before = loop.fingerprint()
    with pytest.raises((RollbackError, KeyError), match=r"fit|groups|last_epoch"):
        state.restore(loop.parts)
    assert loop.fingerprint() == before


def test_a_seed_that_was_taken_out_since_hangs_where_it_was(new_loop: NewLoop) -> None:
    """The same modules come back with their group, trained, in the mode that the host has now."""
    loop = loop_of("adamw-grafting", new_loop)
    state = take(loop.parts)
    before = loop.fingerprint()
    assert loop.esper is not None
    seed = attached_seeds(loop.model)[SEED][2]
    loop.esper.roll_back("a test")
    assert SEED not in attached_seeds(loop.model)
    assert len(loop.optimizer.param_groups) == 1
    loop.model.eval()

    state.restore(loop.parts)

    assert attached_seeds(loop.model)[SEED][2] is seed
    assert not seed.training
    assert all(p.requires_grad for p in seed.parameters())
    assert len(loop.optimizer.param_groups) == 2
    assert loop.parts.executor.table.stage(SEED) is Stage.GRAFTING
    assert loop.fingerprint() == before


def test_seeds_that_were_taken_out_have_their_groups_in_the_order_of_their_grafts(
    new_loop: NewLoop,
) -> None:
    """Not in that of their names or of the model: optimizer state is positional."""
    later_first = ((1, "head", "low_rank"), (2, "conv", "conv"))
    loop = new_loop(**{**GROWN, "schedule": later_first, "ramp_epochs": 9})
    for _ in range(3):
        loop.epoch()
    order = loop.parts.rates.group_order()
    assert order == [["head/0", "conv/0"]]
    state, before = take(loop.parts), loop.fingerprint()
    assert loop.esper is not None
    loop.esper.roll_back("a test")
    assert loop.parts.rates.group_order() == [[]]
    state.restore(loop.parts)
    assert loop.parts.rates.group_order() == order
    assert loop.fingerprint() == before


def test_a_flag_of_what_was_undone_blames_no_seed(new_loop: NewLoop) -> None:
    """A device tells one call late that a seed's output was spoilt: that call did not happen."""
    loop = loop_of("adamw-grafting", new_loop)
    seed = attached_seeds(loop.model)[SEED][2]
    seed.check = FiniteCheck(always_late=True)
    state = take(loop.parts)
    seed.check.spoilt([torch.tensor([torch.nan])], torch.ones(1))
    assert seed.check.seen()
    state.restore(loop.parts)
    assert not seed.check.seen()


def test_what_the_policy_remembers_goes_back_too() -> None:
    """Its own state, and the count of its late answers."""
    model, policy = make_host(), Scripted(lambda state: None)
    parts = parts_of(model, [OPTIMIZERS["sgd"](model.parameters())])
    parts.controller = Controller(policy, time.monotonic)
    policy.num_asked = 3
    state = take(parts)
    policy.num_asked, parts.controller.num_late = 8, 2
    state.restore(parts)
    assert (policy.num_asked, parts.controller.num_late) == (3, 0)


def test_other_parts_with_a_state_go_back_too(new_loop: NewLoop) -> None:
    """Averaged weights, or whatever else the loop names, are part of the state."""
    loop = new_loop()
    average = torch.optim.swa_utils.AveragedModel(loop.model)
    loop.parts.others.append(average)
    loop.steps(2)
    average.update_parameters(loop.model)
    state, then = take(loop.parts), copy_of(average)
    loop.steps(2)
    average.update_parameters(loop.model)
    state.restore(loop.parts)
    assert_same(copy_of(average), then)
