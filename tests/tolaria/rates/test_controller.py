"""Learning rates: seeds get groups of their own, follow their host's, and leave nothing behind."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

import kasmina
from kasmina import LiveSeed
from leyline import ConfigError, Stage
from tests.tolaria.plain_loops import (
    SCHEDULE,
    SEED,
    ConvNet,
    adam,
    assert_same_state,
    assert_tracked,
    attach,
    copy_of_state,
    make_host,
    run,
    seed_parameters,
    train_epoch,
)
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria.rates import UnifiedLRController, refuse_unfit
from tolaria.rates.groups import SEED_KEY


def _decay(step: int) -> float:
    return 0.95**step


def test_after_each_step_the_seed_s_rate_is_its_factor_times_the_host_s(tmp_path: Path) -> None:
    """Also when the loop itself writes the host's rate."""
    model = make_host()
    optimizer = adam(model)
    with attach(
        model, optimizer, tmp_path / "run", schedule=SCHEDULE, seed_learning_rate_factor=0.5
    ) as esper:
        run(model, optimizer, esper, 2)
        for rate in (0.02, 0.003):
            optimizer.param_groups[0]["lr"] = rate
            train_epoch(model, optimizer, esper)
            assert [g["lr"] for g in optimizer.param_groups] == [rate, rate * 0.5]


def test_the_seed_follows_the_group_that_owns_its_site(tmp_path: Path) -> None:
    """Options of the head's group, not of the first, hold for a seed at the head."""
    model = make_host()
    optimizer = torch.optim.AdamW(
        [
            {"params": [*model.conv.parameters(), *model.norm.parameters()]},
            {"params": model.head.parameters(), "lr": 0.02, "weight_decay": 0.3, "eps": 1e-5},
        ],
        lr=0.01,
        weight_decay=0.0,
    )
    schedule = ((1, "head", "low_rank"), (1, "conv", "conv"))
    with attach(model, optimizer, tmp_path / "run", schedule=schedule) as esper:
        run(model, optimizer, esper, 2)
    groups = {group[SEED_KEY]: group for group in optimizer.param_groups if SEED_KEY in group}
    assert [groups["head/0"][k] for k in ("lr", "weight_decay", "eps")] == [0.02, 0.3, 1e-5]
    assert [groups["conv/0"][k] for k in ("lr", "weight_decay", "eps")] == [0.01, 0.0, 1e-8]


def test_an_optimizer_of_named_parameters_stays_one(tmp_path: Path) -> None:
    """Every group still names its parameters after a graft, and after the removal."""
    model = make_host()
    optimizer = torch.optim.Adam(model.named_parameters(), lr=0.01)
    with attach(model, optimizer, tmp_path / "run", schedule=SCHEDULE) as esper:
        run(model, optimizer, esper, 3)
        for group in optimizer.param_groups:
            assert len(group["param_names"]) == len(group["params"])
        names = [name for group in optimizer.param_groups for name in group["param_names"]]
        assert len(names) == len(set(names))
        assert_tracked(model, optimizer)
        optimizer.state_dict()
        esper.after_step(math.nan)
        assert optimizer.param_groups[0]["param_names"] == [n for n, _ in model.named_parameters()]


def test_an_adam_goes_on_with_the_moments_of_the_trial(tmp_path: Path) -> None:
    """The grafted parameters start with the trial's step count and moments, in memory of their
    own."""
    model = make_host()
    optimizer = adam(model)
    with attach(model, optimizer, tmp_path / "run", schedule=SCHEDULE) as esper:
        run(model, optimizer, esper, 2)
        for parameter in seed_parameters(model):
            state = optimizer.state[parameter]
            assert float(state["step"]) == 6
            assert state["exp_avg"].shape == parameter.shape
            assert bool(state["exp_avg_sq"].any())


@pytest.mark.parametrize(
    "make",
    [
        lambda model: torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
        lambda model: torch.optim.RMSprop(model.parameters(), lr=0.01),
        lambda model: torch.optim.Adam(
            [
                {"params": [*model.norm.parameters(), *model.head.parameters()]},
                {"params": model.conv.parameters(), "amsgrad": True},
            ],
            lr=0.01,
        ),
    ],
    ids=["sgd", "rmsprop", "another amsgrad"],
)
def test_moments_that_do_not_fit_are_not_carried(
    make: Callable[[ConvNet], Optimizer], tmp_path: Path
) -> None:
    """Where the trial's optimizer kept other state than the live one needs, the seed starts
    without, and the next steps work."""
    model = make_host()
    optimizer = make(model)
    with attach(model, optimizer, tmp_path / "run", schedule=SCHEDULE) as esper:
        run(model, optimizer, esper, 2)
        assert all(parameter not in optimizer.state for parameter in seed_parameters(model))
        run(model, optimizer, esper, 1)
        assert all(parameter in optimizer.state for parameter in seed_parameters(model))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: torch.optim.LBFGS(p), "LBFGS takes one parameter group only"),
        (lambda p: torch.optim.SparseAdam(p), "SparseAdam takes sparse gradients only"),
        (lambda p: torch.optim.Muon([q for q in p if q.ndim == 2]), "Muon takes matrices only"),
    ],
)
def test_an_optimizer_that_cannot_grow_is_refused(
    make: Callable[[list[nn.Parameter]], Optimizer], reason: str, tmp_path: Path
) -> None:
    """The error names the optimizer and the way out, which works; no run was opened."""
    model = make_host()
    optimizer = make(list(model.parameters()))
    with pytest.raises(ConfigError, match=reason) as refused:
        attach(model, optimizer, tmp_path / "run")
    assert "policy='hold'" in str(refused.value)
    assert not (tmp_path / "run").exists()
    attach(model, optimizer, tmp_path / "run", policy="hold").close()


@pytest.mark.parametrize("what", ["adam", None, {"lr": 0.1}, [], torch.optim.Adam])
def test_what_is_no_optimizer_is_refused(what: Any, tmp_path: Path) -> None:
    """The error names the type that was given."""
    with pytest.raises(ConfigError, match=f"optimizer is a {type(what).__name__}"):
        attach(make_host(), what, tmp_path / "run")


def test_no_optimizer_at_all_is_refused() -> None:
    """A module without optimizers has nothing that could train a seed."""
    with pytest.raises(ConfigError, match="there is none"):
        refuse_unfit([])


def test_a_seed_joins_the_optimizer_that_can_take_it() -> None:
    """A sparse optimizer that owns part of the site is passed over."""
    model = nn.Module()
    model.block = nn.Sequential(nn.EmbeddingBag(4, 3, sparse=True), nn.Linear(3, 3))
    sparse = torch.optim.SparseAdam(list(model.block[0].parameters()))
    dense = torch.optim.SGD(model.block[1].parameters(), lr=0.1)
    rates = UnifiedLRController(model, [sparse, dense])
    refuse_unfit([sparse, dense])
    rates.reconcile({"block/0": _seed("block")}, lambda _: ())
    assert [len(o.param_groups) for o in (sparse, dense)] == [1, 2]


def _seed(site: str, *parameters: nn.Parameter) -> LiveSeed:
    return LiveSeed(site, parameters or (nn.Parameter(torch.ones(2)),), trainable=True)


def _controller(num_groups: int = 1) -> tuple[UnifiedLRController, Optimizer]:
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(num_groups)))
    groups = [{"params": m.parameters(), "lr": 0.1 * i} for i, m in enumerate(model, 1)]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    return UnifiedLRController(model, [optimizer]), optimizer


def test_seeds_still_follow_after_the_optimizer_s_state_was_loaded() -> None:
    """Loading replaces every group by a new one; the new ones are followed."""
    rates, optimizer = _controller()
    rates.reconcile({"0/0": _seed("0")}, lambda _: ())
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.param_groups[0]["lr"] = 0.7
    rates.follow()
    assert optimizer.param_groups[1]["lr"] == 0.7


def test_a_group_that_the_user_adds_later_is_no_one_else_s_host() -> None:
    """Removing a seed moves the groups behind it; those that follow them still do."""
    rates, optimizer = _controller()
    first = {"0/0": _seed("0")}
    rates.reconcile(first, lambda _: ())
    later = nn.Linear(2, 2)
    rates._model.add_module("1", later)
    optimizer.add_param_group({"params": later.parameters(), "lr": 0.5})
    both = {**first, "1/0": _seed("1")}
    rates.reconcile(both, lambda _: ())
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.1, 0.5, 0.5]

    rates.reconcile({"1/0": both["1/0"]}, lambda _: ())
    optimizer.param_groups[1]["lr"] = 0.3
    rates.follow()
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.3, 0.3]


def test_going_back_to_a_mark_undoes_groups_state_and_schedulers() -> None:
    """After seeds came and went, optimizer and scheduler are as they were at the mark."""
    rates, optimizer = _controller(2)
    scheduler = lr_scheduler.LambdaLR(optimizer, [_decay, _decay])
    rates.find_schedulers()
    old = {"0/0": _seed("0"), "1/0": _seed("1")}
    rates.reconcile(old, lambda _: ())
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    scheduler.step()
    rates.follow()
    groups = [dict(group) for group in optimizer.param_groups]
    state, last = copy_of_state(optimizer), list(scheduler.get_last_lr())
    mark = rates.mark()

    rates.reconcile({"1/0": old["1/0"], "0/1": _seed("0")}, lambda _: ())
    assert len(optimizer.state) == 5
    rates.go_back(mark)

    assert [dict(group) for group in optimizer.param_groups] == groups
    assert_same_state(copy_of_state(optimizer), state)
    assert scheduler.get_last_lr() == last
    optimizer.step()
    scheduler.step()


def test_the_trial_s_optimizer_is_the_host_s_own_kind_of_adam() -> None:
    """Its options are those of the first group; any other optimizer means AdamW at 3e-3."""
    model = nn.Linear(2, 2)
    host = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.02), betas=(0.8, 0.9))
    recipe = UnifiedLRController(model, [host]).recipe(None)
    assert recipe.factory is torch.optim.Adam
    assert (recipe.options["lr"], recipe.options["betas"]) == (pytest.approx(0.02), (0.8, 0.9))
    other = UnifiedLRController(model, [torch.optim.SGD(model.parameters(), lr=5.0)])
    assert other.recipe(None).factory is torch.optim.AdamW
    assert other.recipe(None).options == {"lr": 3e-3}
    assert other.recipe(0.1).options == {"lr": 0.1}


@pytest.mark.parametrize("order", [["0/0", "1/0"], ["1/0", "0/0"]])
def test_regrouping_restores_the_saved_order_of_groups(order: Sequence[str]) -> None:
    """A fresh optimizer over a grown model has the groups of the saved one, in its order."""
    seeds = {"0/0": _seed("0"), "1/0": _seed("1")}
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    grown = [p for seed in seeds.values() for p in seed.parameters]
    optimizer = torch.optim.SGD([*model.parameters(), *grown], lr=0.1)
    rates = UnifiedLRController(model, [optimizer])
    rates.regroup(seeds, [order])
    assert rates.group_order() == [order]
    assert len(optimizer.param_groups[0]["params"]) == 4


def test_a_detached_seed_leaves_the_optimizer_to_the_next_run(tmp_path: Path) -> None:
    """The groups of a seed taken off since are gone; a new seed of its name is tracked."""
    model = make_host()
    optimizer = adam(model)
    for name in ("first", "second"):
        with attach(model, optimizer, tmp_path / name, schedule=SCHEDULE) as esper:
            assert_tracked(model, optimizer)
            run(model, optimizer, esper, 3)
            assert esper.executor.table.stage(SEED) is Stage.STABILIZATION
            assert_tracked(model, optimizer)
        kasmina.detach(model)
