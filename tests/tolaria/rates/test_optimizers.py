"""Every optimizer of torch, and some that are not torch's, takes a seed in and lets it go."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from kasmina import LiveSeed
from leyline import ConfigError
from tolaria import Orchestrator
from tolaria.rates import RateRule, UnifiedLRController, refuse_unfit
from tolaria.rates.groups import HOST_KEY, SEED_KEY

Parameters = Iterable[Any]


class SignDescent(Optimizer):
    """A user's own, whose group has an option that no optimizer of torch has."""

    def __init__(self, params: Parameters, lr: float = 0.01):
        super().__init__(params, {"lr": lr, "noise": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter -= group["lr"] * parameter.grad.sign()


class OwnAdam(torch.optim.Adam):
    """A user's subclass."""


class NoRate(Optimizer):
    """Has no learning rate at all."""

    def __init__(self, params: Parameters):
        super().__init__(params, {"scale": 1.0})


class ZeroRedundancyOptimizer(SignDescent):
    """Stands in by its name: torch's own needs a process group."""


T = torch.optim
OPTIMIZERS: dict[str, Callable[[Parameters], Optimizer]] = {
    **{
        kind.__name__: (lambda p, kind=kind: kind(p, lr=0.01))
        for kind in (
            T.ASGD,
            T.Adadelta,
            T.Adafactor,
            T.Adagrad,
            T.Adam,
            T.AdamW,
            T.Adamax,
            T.NAdam,
            T.RAdam,
            T.RMSprop,
            T.Rprop,
            T.SGD,
            SignDescent,
            OwnAdam,
        )
    },
    "amsgrad": lambda p: T.Adam(p, lr=0.01, amsgrad=True),
    "foreach": lambda p: T.AdamW(p, lr=0.01, foreach=True),
    "fused": lambda p: T.AdamW(p, lr=0.01, fused=True),
    "fused SGD": lambda p: T.SGD(p, lr=0.01, momentum=0.9, fused=True),
    "tensor": lambda p: T.Adam(p, lr=torch.tensor(0.01)),
    "fused tensor": lambda p: T.AdamW(p, lr=torch.tensor(0.01), fused=True),
    "double tensor": lambda p: T.Adam(p, lr=torch.tensor(0.01, dtype=torch.float64)),
}


def seed_at(site: str, *, trainable: bool = True) -> LiveSeed:
    parameter = nn.Parameter(torch.ones(2, 2), requires_grad=trainable)
    return LiveSeed(site, (parameter,), trainable)


def step(optimizer: Optimizer) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    optimizer.step()


@pytest.mark.parametrize("named", [False, True], ids=["plain", "named"])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_seed_follows_trains_rests_and_leaves(kind: str, named: bool) -> None:
    """At the rule's rate it moves while the host's rate falls, at 0 it stays as it is, and with it
    goes all that the optimizer held of it; saving and loading in between changes nothing."""
    host = nn.Linear(2, 2)
    model = nn.Sequential(host)
    optimizer = OPTIMIZERS[kind](model.named_parameters() if named else model.parameters())
    rates = UnifiedLRController(model, [optimizer], rule=RateRule(0.5, warmup_steps=2))
    seed = seed_at("0")
    (parameter,) = seed.parameters
    rates.reconcile({"0/0": seed}, lambda _: ())
    used: list[float] = []
    watch = optimizer.register_step_post_hook(
        lambda o, *_: used.append(float(o.param_groups[1]["lr"]))
    )
    for number in range(3):
        before = parameter.detach().clone()
        _set_host(optimizer, 0.01 / (1 + number))
        step(optimizer)
        rates.after_step()
        assert not torch.equal(before, parameter)
        optimizer.load_state_dict(optimizer.state_dict())
    assert used == pytest.approx([0.01 / 4, 0.01 / 4, 0.01 / 6])

    parameter.requires_grad_(False)
    before = parameter.detach().clone()
    rates.reconcile({"0/0": LiveSeed("0", seed.parameters, False)}, lambda _: ())
    step(optimizer)
    assert used[-1] == 0.0
    assert torch.equal(before, parameter)

    watch.remove()
    rates.reconcile({}, lambda _: ())
    assert len(optimizer.param_groups) == 1
    assert set(optimizer.state) <= set(host.parameters())
    step(optimizer)


def _set_host(optimizer: Optimizer, rate: float) -> None:
    group = optimizer.param_groups[0]
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def test_a_rate_that_is_a_tensor_keeps_its_address() -> None:
    """Compiled and captured steps read it where it was; it is not the host's own tensor."""
    model = nn.Sequential(nn.Linear(2, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.01))
    rates = UnifiedLRController(model, [optimizer], rule=RateRule(0.5))
    rates.reconcile({"0/0": seed_at("0")}, lambda _: ())
    host, seed = (group["lr"] for group in optimizer.param_groups)
    address = seed.data_ptr()
    host.fill_(0.3)
    step(optimizer)
    assert (float(host), float(seed)) == pytest.approx((0.3, 0.15))
    assert optimizer.param_groups[1]["lr"] is seed
    assert seed.data_ptr() == address != host.data_ptr()


def test_seeds_follow_in_several_optimizers_at_once() -> None:
    """Each in the one that owns its site, beside an optimizer that can take none."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.EmbeddingBag(4, 3, sparse=True))
    first = torch.optim.SGD(model[0].parameters(), lr=0.1)
    second = torch.optim.RMSprop(model[1].parameters(), lr=0.2)
    sparse = torch.optim.SparseAdam(list(model[2].parameters()))
    rates = UnifiedLRController(model, [sparse, first, second], rule=RateRule(0.5))
    rates.reconcile({"0/0": seed_at("0"), "1/0": seed_at("1")}, lambda _: ())
    first.param_groups[0]["lr"] = 0.4
    rates.follow()
    assert rates.learning_rates() == ((0.001, 0.4, 0.2), {"0/0": 0.2, "1/0": 0.1})


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (ZeroRedundancyOptimizer, "ZeroRedundancyOptimizer deals parameters out among processes"),
        (NoRate, "NoRate has a parameter group without a learning rate"),
        (lambda p: SignDescent(p, lr=None), "SignDescent has a parameter group without a learning"),
    ],
)
def test_what_no_seed_can_join_is_refused_by_name(
    make: Callable[[Parameters], Optimizer], reason: str
) -> None:
    """The error says what it is and why."""
    with pytest.raises(ConfigError, match=reason):
        refuse_unfit([make(nn.Linear(1, 1).parameters())])


def test_an_optimizer_without_rates_may_train_beside_one_that_has_them(tmp_path: Path) -> None:
    """Its groups are passed over, and a run that grows nothing takes it as the only one."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    first, second = NoRate(model[0].parameters()), torch.optim.SGD(model[1].parameters(), lr=0.2)
    refuse_unfit([first, second])
    rates = UnifiedLRController(model, [first, second], rule=RateRule(0.5))
    rates.reconcile({"0/0": seed_at("0")}, lambda _: ())
    rates.after_step()
    assert not rates.take_foreign_writes()
    assert rates.learning_rates() == ((0.2,), {"0/0": 0.1})

    settings = {"policy": "hold", "telemetry": "off", "checkpoint": False}
    with Orchestrator.attach(model, first, run_dir=str(tmp_path / "run"), **settings) as held:
        held.after_step(1.0)
        held.epoch_boundary({})


def test_other_options_of_the_host_s_group_are_followed_at_the_boundary() -> None:
    """A weight decay that the user schedules on the host's group holds for its seeds from the next
    boundary on; what belongs to the seed's group alone stays."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    groups = [{"params": layer.parameters()} for layer in model]
    optimizer = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.0)
    rates = UnifiedLRController(model, [optimizer], rule=RateRule(0.5))
    live = {"1/0": seed_at("1")}
    rates.reconcile(live, lambda _: ())
    optimizer.param_groups[0]["weight_decay"] = 0.7
    optimizer.param_groups[1].update(weight_decay=0.3, betas=(0.8, 0.9))
    rates.reconcile(live, lambda _: ())
    group = optimizer.param_groups[2]
    assert (group["weight_decay"], group["betas"]) == (0.3, (0.8, 0.9))
    assert (group["lr"], group[SEED_KEY], group[HOST_KEY]) == (0.05, "1/0", 1)
    assert group["params"] == list(live["1/0"].parameters)
