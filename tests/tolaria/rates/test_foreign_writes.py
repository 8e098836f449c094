"""Foreign writes: found, named, put back and counted; a schedule of all groups is none."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import BackboneFinetuning
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

from kasmina import LiveSeed
from leyline import BreakerChange, Event, Fault
from tests.tolaria.lightning.models import MLP, PLANT, esper, fit
from tests.tolaria.lightning.models import listen as listen_to
from tests.tolaria.plain_loops import (
    SEED,
    TRAIN,
    adam,
    assert_same,
    attach,
    copy_of,
    evaluate,
    faults,
    listen,
    make_host,
    run,
    train_epoch,
)
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria import Orchestrator
from tolaria.rates import RateRule, UnifiedLRController
from tolaria.rates.groups import SEED_KEY

FACTOR = 0.5
SCHEDULE = ((1, "conv", "conv"), (5, "head", "low_rank"))
"""The second seed is planted when the first has long settled."""
Write = Callable[[dict[str, Any]], None]


def foreign(events: list[Event]) -> list[Fault]:
    return [fault for fault in faults(events) if fault.where.startswith("learning rate of")]


def seed_group(optimizer: Optimizer) -> dict[str, Any]:
    found: dict[str, Any] = next(g for g in optimizer.param_groups if SEED_KEY in g)
    return found


def write(group: dict[str, Any]) -> None:
    group["lr"] = 0.75


def grafted(run_dir: Path, **settings: Any) -> tuple[nn.Module, Optimizer, Orchestrator]:
    """A run whose seed is in GRAFTING."""
    model = make_host()
    optimizer = adam(model)
    no_trial = {"loss_fn": None, "data": None, "example": TRAIN[0][0]}
    given = {"schedule": SCHEDULE, "seed_learning_rate_factor": FACTOR, **no_trial, **settings}
    orchestrator = attach(model, optimizer, run_dir, **given)
    run(model, optimizer, orchestrator, 2)
    return model, optimizer, orchestrator


@pytest.mark.parametrize("at_step", [0, 3])
def test_a_foreign_write_is_told_and_changes_nothing(at_step: int, tmp_path: Path) -> None:
    """Written after any step of the epoch, the next boundary names the seed with what was found and
    expected, once; every step is taken at the right rate, and host and seed end as in a run that
    nobody wrote to, bit for bit."""
    used: list[float] = []
    ends = []
    for number, writes in enumerate((True, False)):
        model, optimizer, orchestrator = grafted(tmp_path / str(number))
        heard = listen(orchestrator)
        optimizer.register_step_post_hook(lambda o, *_: used.append(seed_group(o)["lr"]))
        with orchestrator:
            steps = iter(range(len(TRAIN)))

            def meddle(
                loss: Tensor, steps: Any = steps, ours: Optimizer = optimizer, on: bool = writes
            ) -> None:
                if next(steps) == at_step and on:
                    write(seed_group(ours))

            train_epoch(model, optimizer, orchestrator, after_step=meddle)
            torch.manual_seed(1)
            orchestrator.epoch_boundary(evaluate(model))
            run(model, optimizer, orchestrator, 1)
        ends.append(copy_of(model))
        assert used == [0.01 * FACTOR] * 4 + [0.0] * 4
        used.clear()
        told = foreign(heard)
        assert len(told) == writes
        if writes:
            assert told[0].where == f"learning rate of {SEED}"
            assert "set to 0.75 from outside, where 0.005 was expected" in told[0].what
            assert told[0].epoch == 3
    assert_same(*ends)


def test_a_write_to_a_frozen_seed_is_foreign_too(tmp_path: Path) -> None:
    """Its rate is 0 by rule, and is 0 again before the next step."""
    model, optimizer, orchestrator = grafted(tmp_path / "run")
    with orchestrator:
        run(model, optimizer, orchestrator, 1)
        heard = listen(orchestrator)
        write(seed_group(optimizer))
        train_epoch(model, optimizer, orchestrator)
        assert seed_group(optimizer)["lr"] == 0.0
        orchestrator.epoch_boundary(evaluate(model))
    assert ["where 0 was expected" in fault.what for fault in foreign(heard)] == [True]


def test_a_rate_that_is_a_tensor_is_watched_at_the_boundary(tmp_path: Path) -> None:
    """Written after the last step, in place, it is found and put back into the same tensor."""
    model = make_host()
    optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.01))
    settings = {"schedule": SCHEDULE, "seed_learning_rate_factor": FACTOR}
    with attach(model, optimizer, tmp_path / "run", **settings) as orchestrator:
        run(model, optimizer, orchestrator, 2)
        heard = listen(orchestrator)
        held = seed_group(optimizer)["lr"]
        train_epoch(model, optimizer, orchestrator)
        held.fill_(0.75)
        orchestrator.rates.take_foreign_writes()
        assert seed_group(optimizer)["lr"] is held
        assert float(held) == pytest.approx(0.005)
        held.fill_(0.5)
        orchestrator.epoch_boundary(evaluate(model))
    assert ["set to 0.5 from outside" in fault.what for fault in foreign(heard)] == [True]


def test_three_disturbed_epochs_in_a_row_hold_growth(tmp_path: Path) -> None:
    """The breaker opens at the third and the next seed is not planted; two with a quiet one
    between do nothing."""
    opened, planted = [], []
    for disturbed in ((3, 4, 5), (3, 5)):
        model, optimizer, orchestrator = grafted(tmp_path / str(len(disturbed)))
        heard = listen(orchestrator)
        with orchestrator:
            for epoch in (3, 4, 5):
                if epoch in disturbed:
                    write(seed_group(optimizer))
                train_epoch(model, optimizer, orchestrator)
                report = orchestrator.epoch_boundary(evaluate(model))
        assert len(foreign(heard)) == len(disturbed)
        changes = [e for e in heard if isinstance(e, BreakerChange)]
        opened.append([(change.name, change.now) for change in changes])
        planted.append([c.site for c in report.decision.commands if hasattr(c, "blueprint")])
        if len(disturbed) == 3:
            assert "growth holds: the learning rates" in report.decision.cause
    assert opened == [[("learning rates", "open")], []]
    assert planted == [[], ["head"]]


def set_all(optimizer: Optimizer, step: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = 0.02 / (1 + step)


def scale_all(optimizer: Optimizer, step: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] *= 0.9


def host_alone(optimizer: Optimizer, step: int) -> None:
    optimizer.param_groups[0]["lr"] = 0.02 / (1 + step)


def dampened(optimizer: Optimizer, step: int) -> None:
    """A scheduler's step, and a factor of the loop's own on top."""
    if step == 0:
        optimizer.schedule = lr_scheduler.CosineAnnealingLR(optimizer, 9, eta_min=1e-4)
    else:
        for group in optimizer.param_groups:
            group["lr"] /= 1 - 0.5 ** (step + 1)
        optimizer.schedule.step()
    for group in optimizer.param_groups:
        group["lr"] *= 1 - 0.5 ** (step + 2)


@pytest.mark.parametrize("warmup_steps", [0, 3])
@pytest.mark.parametrize("schedule", [set_all, scale_all, host_alone, dampened])
def test_a_loop_that_treats_all_groups_alike_is_not_told_off(
    schedule: Callable[[Optimizer, int], None], warmup_steps: int, tmp_path: Path
) -> None:
    """Setting every group, multiplying every group, or the host's alone: the seed's rate is the
    rule's in every step, and nobody is blamed."""
    model, optimizer, orchestrator = grafted(tmp_path / "run", seed_warmup_steps=warmup_steps)
    heard = listen(orchestrator)
    shares: list[float] = []
    optimizer.register_step_post_hook(
        lambda o, *_: shares.append(seed_group(o)["lr"] / o.param_groups[0]["lr"])
    )
    with orchestrator:
        for epoch in range(2):
            for step, batch in enumerate(TRAIN):
                train_epoch(model, optimizer, orchestrator, [batch])
                schedule(optimizer, 4 * epoch + step)
            orchestrator.epoch_boundary(evaluate(model))
    assert not foreign(heard)
    warm = [FACTOR * min(1, (n + 1) / 3) if warmup_steps else FACTOR for n in range(4)]
    assert shares == pytest.approx([*warm, 0, 0, 0, 0])


def test_lightnings_backbone_finetuning_is_told_whose_group_it_writes(tmp_path: Path) -> None:
    """It takes the last group for its own, which is the seed's once there is one."""

    class Finetuned(MLP):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.head.parameters(), lr=0.05)

        @property
        def backbone(self) -> nn.Module:
            return self.net

    callback = esper(tmp_path / "run", schedule=PLANT)
    heard = listen_to(callback)
    finetuning = BackboneFinetuning(1, lambda epoch: 2.0, backbone_initial_lr=0.001)
    fit(Finetuned, [finetuning, callback], max_epochs=5)
    told = foreign(heard)
    assert told
    assert {fault.where for fault in told} == {"learning rate of net.0/0"}


def bare_controller() -> tuple[UnifiedLRController, Optimizer, dict[str, LiveSeed]]:
    """Two layers in groups of their own, with a seed at each."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    groups = [
        {"params": layer.parameters(), "lr": lr}
        for layer, lr in zip(model, (0.1, 0.2), strict=True)
    ]
    optimizer = torch.optim.SGD(groups)
    rates = UnifiedLRController(model, [optimizer], rule=RateRule(0.5, warmup_steps=4))
    live = {
        name: LiveSeed(name[0], (nn.Parameter(torch.ones(2)),), True) for name in ("0/0", "1/0")
    }
    rates.reconcile(live, lambda _: ())
    return rates, optimizer, live


def test_loading_an_optimizer_s_state_is_nobody_s_write() -> None:
    """The rates of another time come with it; the seed's is the rule's of now."""
    rates, optimizer, _ = bare_controller()
    saved = copy.deepcopy(optimizer.state_dict())
    for _ in range(3):
        rates.after_step()
    optimizer.load_state_dict(saved)
    assert not rates.take_foreign_writes()
    assert rates.learning_rates()[1] == pytest.approx({"0/0": 0.05, "1/0": 0.1})


def test_seeds_that_come_and_go_at_once_are_nobody_s_write() -> None:
    """Their groups move up to places where others' rates were."""
    rates, _, live = bare_controller()
    frozen = LiveSeed("1", live["1/0"].parameters, False)
    rates.reconcile({**live, "1/0": frozen}, lambda _: ())
    new = LiveSeed("0", (nn.Parameter(torch.ones(2)),), True)
    rates.reconcile({"1/0": frozen, "0/1": new}, lambda _: ())
    assert not rates.take_foreign_writes()
    assert rates.learning_rates()[1] == {"1/0": 0.0, "0/1": 0.1 * 0.5 / 4}
