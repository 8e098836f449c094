"""The Lightning callback: what it does to a run, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler
from torch.utils.data import TensorDataset

import kasmina
from kasmina.slots.slot import attached_seeds
from leyline import Stage
from tests.tolaria.lightning.models import (
    MLP,
    PLANT,
    SITE,
    STEPS_PER_EPOCH,
    AtEpochEnd,
    ConvNet,
    Losses,
    assert_same_run,
    assert_same_tensors,
    esper,
    fit,
    listen,
    optimizer_state,
    stages,
    tabular,
    weights,
)

SEED = f"{SITE}/0"


class SilentInEval(nn.Module):
    """Trains like any other body, and is worth nothing on held-out data."""

    def __init__(self, shape: kasmina.SiteShape):
        super().__init__()
        self.mix = nn.Linear(shape.channels, shape.channels)
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)

    def forward(self, host: Tensor) -> Tensor:
        grown = self.mix(host)
        return grown if self.training else torch.zeros_like(grown)


kasmina.register("silent_in_eval", SilentInEval)
USELESS = ((1, SITE, "silent_in_eval"),)


# --- do no harm ----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [MLP, ConvNet])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize(
    "options", [{}, {"accumulate_grad_batches": 4}], ids=["plain", "accumulate"]
)
def test_a_dormant_run_ends_bit_identical(
    tmp_path: Path, model: Any, optimizer: str, options: dict[str, Any]
) -> None:
    """With growth off, weights, buffers and optimizer state are those of a run without Esper."""
    build = partial(model, optimizer)
    plain = fit(build, [losses := Losses()], **options)
    callback = esper(tmp_path / "run", checkpoint=True)
    observed = fit(build, [callback, with_esper := Losses()], **options)
    assert_same_run(plain, observed)
    assert all(map(torch.equal, losses.losses, with_esper.losses))
    assert len(callback.report()["boundaries"]) == 3


@pytest.mark.parametrize("model", [MLP, ConvNet])
def test_a_seed_on_trial_is_not_felt(tmp_path: Path, model: Any) -> None:
    """Until its alpha rises, after its trial, losses and weights are those of a run without it."""
    fit(model, [plain := Losses()])
    callback = esper(tmp_path / "run", schedule=PLANT)
    alphas: list[float] = []

    def note_alpha(*_: Any) -> None:
        held = attached_seeds(callback.orchestrator.model)
        alphas.append(float(held[SEED][2].alpha) if held else 0.0)

    fit(model, [callback, grown := Losses(), AtEpochEnd(note_alpha)])
    same = 2 * STEPS_PER_EPOCH + 1  # alpha is 0 in the first step after the graft
    assert all(map(torch.equal, plain.losses[:same], grown.losses[:same]))
    assert_same_tensors(plain.weights[0], grown.weights[0])
    host = {name: value for name, value in grown.weights[1].items() if "esper" not in name}
    assert len(host) < len(grown.weights[1]), "the seed is grafted at the end of epoch 2"
    assert_same_tensors(plain.weights[1], host)
    assert alphas == [0.0, 0.0, 1.0]
    assert not torch.equal(plain.losses[-1], grown.losses[-1])
    assert callback.report()["seeds"][0]["trial_gain"] is not None


def test_alpha_rises_step_by_step_through_the_epoch_of_the_graft(tmp_path: Path) -> None:
    """Alpha is 0 in the first step of a graft's epoch and rises evenly to 1 at its end."""
    callback = esper(tmp_path / "run", schedule=PLANT)
    alphas: list[float] = []

    class NoteAlpha(Losses):
        def on_train_batch_start(self, *_: Any) -> None:
            table = callback.orchestrator.executor.table
            alphas.append(table.get(SEED, "alpha") if SEED in table else 0.0)

    fit(MLP, [callback, NoteAlpha()])
    assert alphas[: 2 * STEPS_PER_EPOCH] == [0.0] * 2 * STEPS_PER_EPOCH
    steps = [i / STEPS_PER_EPOCH for i in range(STEPS_PER_EPOCH)]
    assert alphas[2 * STEPS_PER_EPOCH :] == pytest.approx(steps)


def test_the_users_module_is_left_alone(tmp_path: Path) -> None:
    """After a fit the module has the attributes and hooks that it has after a plain one."""

    def shape_of(model: nn.Module) -> list[Any]:
        hooks = [
            {name: len(value) for name, value in module.__dict__.items() if "hooks" in name}
            for module in model.modules()
        ]
        return [list(model.__dict__), hooks, [type(module) for module in model.modules()]]

    plain = fit(MLP, max_epochs=4)[1]
    held = fit(MLP, [esper(tmp_path / "hold")], max_epochs=4)[1]
    grown = fit(MLP, [esper(tmp_path / "grown", schedule=PLANT)], max_epochs=4)[1]
    assert shape_of(held) == shape_of(plain)
    assert shape_of(kasmina.detach(grown)) == shape_of(plain)


# --- optimizers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_every_trainable_parameter_is_in_one_group(tmp_path: Path, optimizer: str) -> None:
    """After each boundary of a seed's life the groups hold each trainable parameter once."""
    callback = esper(tmp_path / "run", schedule=PLANT, veto=False)
    seen: set[str] = set()

    def check(trainer: Any, model: nn.Module) -> None:
        grouped = [
            id(parameter)
            for optimizer in trainer.optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        ]
        assert len(grouped) == len(set(grouped))
        assert set(grouped) >= {id(p) for p in model.parameters() if p.requires_grad}
        assert set(grouped) <= {id(p) for p in model.parameters()}
        seen.update(stages(callback).values())

    fit(partial(MLP, optimizer), [callback, AtEpochEnd(check)], max_epochs=7)
    assert seen >= {"TRAINING", "GRAFTING", "STABILIZATION", "EVALUATING", "FINE_TUNING"}
    assert stages(callback) == {SEED: "FOSSILIZED"}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_germination_and_graft_leave_the_hosts_optimizer_state(
    tmp_path: Path, optimizer: str
) -> None:
    """The boundaries that plant and graft a seed change nothing of the host's optimizer state."""
    before: dict[str, Tensor] = {}

    def keep(trainer: Any, model: nn.Module) -> None:
        before.clear()
        before.update(optimizer_state(trainer, model))

    def compare(trainer: Any, model: nn.Module) -> None:
        after = optimizer_state(trainer, model)
        if trainer.current_epoch < 2:  # then the seed is in the host, and its state is no host's
            assert_same_tensors(before, {k: v for k, v in after.items() if "esper" not in k})

    callback = esper(tmp_path / "run", schedule=PLANT)
    fit(partial(ConvNet, optimizer), [AtEpochEnd(keep), callback, AtEpochEnd(compare)])
    assert stages(callback) == {SEED: "STABILIZATION"}
    assert before


def test_a_graft_brings_the_moments_of_its_trial(tmp_path: Path) -> None:
    """A grafted seed starts with the Adam moments and step count that its trial ended with."""
    found: dict[str, Tensor] = {}
    callback = esper(tmp_path / "run", schedule=PLANT)
    check = AtEpochEnd(lambda trainer, model: found.update(optimizer_state(trainer, model)))
    fit(MLP, [callback, check], max_epochs=2)
    seeds = {name: value for name, value in found.items() if "esper" in name}
    assert {int(v) for name, v in seeds.items() if name.endswith(".step")} == {4}
    assert any(bool(v.abs().sum()) for name, v in seeds.items() if name.endswith("exp_avg"))


# --- schedulers ----------------------------------------------------------------------------------

NUM_STEPS = 6 * STEPS_PER_EPOCH
SCHEDULERS: dict[str, Callable[[Optimizer], Any]] = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 1, gamma=0.7),
    "OneCycleLR": lambda o: {
        "scheduler": lr_scheduler.OneCycleLR(o, max_lr=0.05, total_steps=NUM_STEPS),
        "interval": "step",
    },
    "CosineAnnealingLR": lambda o: {
        "scheduler": lr_scheduler.CosineAnnealingLR(o, T_max=NUM_STEPS),
        "interval": "step",
    },
    "ReduceLROnPlateau": lambda o: {
        "scheduler": lr_scheduler.ReduceLROnPlateau(o, patience=0, threshold=0.5),
        "monitor": "train_loss",
    },
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.8**epoch),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o,
        [lr_scheduler.ConstantLR(o, 0.5, 2), lr_scheduler.ExponentialLR(o, 0.8)],
        milestones=[2],
    ),
    "CyclicLR": lambda o: {
        "scheduler": lr_scheduler.CyclicLR(o, 0.001, 0.01, 5, cycle_momentum=False),
        "interval": "step",
    },
}


def _cases() -> list[Any]:
    """Every scheduler with a seed that stays and one that goes; three are in the fast tier."""
    fast = ("OneCycleLR", "ReduceLROnPlateau", "LambdaLR")
    return [
        pytest.param(scheduler, schedule, id=f"{scheduler}-{name}", marks=marks)
        for scheduler in SCHEDULERS
        for name, schedule in (("kept", PLANT), ("culled", USELESS))
        for marks in [() if name == "culled" and scheduler in fast else pytest.mark.slow]
    ]


@pytest.mark.parametrize(("scheduler", "schedule"), _cases())
def test_a_seeds_learning_rate_is_its_hosts_at_every_step(
    tmp_path: Path, scheduler: str, schedule: Any
) -> None:
    """Schedulers run through graft and cull; each step's rates are those of the plain run, and the
    seed's is its host's or, while it is frozen, 0.

    A factor other than 1 is one that the scheduler itself knows nothing of.
    """

    class Rates(Losses):
        def __init__(self) -> None:
            super().__init__()
            self.rates: list[list[float]] = []

        def on_before_optimizer_step(self, trainer: Any, model: Any, optimizer: Any) -> None:
            self.rates.append([group["lr"] for group in optimizer.param_groups])

    build = partial(MLP, scheduler=SCHEDULERS[scheduler])
    fit(build, [plain := Rates()], max_epochs=6)
    factor = 0.5 if schedule is USELESS else 1.0
    options = {"veto": schedule is USELESS, "seed_learning_rate_factor": factor}
    callback = esper(tmp_path / "run", schedule=schedule, **options)
    fit(build, [callback, grown := Rates()], max_epochs=6)
    assert [len(rates) for rates in grown.rates].count(2) >= 3 * STEPS_PER_EPOCH
    followed = [rates for rates in grown.rates if rates[1:] == [rates[0] * factor]]
    assert len(followed) >= STEPS_PER_EPOCH, "while its host and it train"
    assert all(rates[1:] in ([], [0.0]) for rates in grown.rates if rates not in followed)
    assert len({rates[0] for rates in plain.rates}) > 1, "the schedule does something"
    if scheduler != "ReduceLROnPlateau":  # which looks at losses, and they are other ones
        assert [rates[0] for rates in grown.rates] == [rates[0] for rates in plain.rates]
    assert stages(callback) == {SEED: "CULLED" if schedule is USELESS else "FOSSILIZED"}


# --- the counterfactual --------------------------------------------------------------------------


def test_a_useless_seed_is_culled_without_a_trace(tmp_path: Path) -> None:
    """The cull leaves no key, parameter, group or state of the seed, and the host as at alpha 0."""
    inputs = ConvNet.data(16, 9)[:][0].reshape(16, -1)
    without: list[Tensor] = []

    def output_without_seed(trainer: Any, model: Any) -> None:
        held = attached_seeds(model)
        if held and callback.orchestrator.executor.table.stage(SEED) is Stage.EVALUATING:
            model.eval()
            held[SEED][2].active = False
            without.append(model(inputs).detach())
            held[SEED][2].active = True
            model.train()

    def after_cull(trainer: Any, model: Any) -> None:
        if trainer.current_epoch != 4:
            return
        assert stages(callback) == {SEED: "CULLED"}
        model.eval()
        assert torch.equal(model(inputs), without[-1])
        model.train()
        plain = MLP()
        assert list(model.state_dict()) == list(plain.state_dict())
        assert [n for n, _ in model.named_modules()] == [n for n, _ in plain.named_modules()]
        (optimizer,) = trainer.optimizers
        (group,) = optimizer.param_groups
        assert list(map(id, group["params"])) == list(map(id, model.parameters()))
        assert set(optimizer.state) == set(model.parameters())

    callback = esper(tmp_path / "run", schedule=USELESS)
    events = listen(callback)
    fit(
        MLP,
        [AtEpochEnd(output_without_seed), callback, AtEpochEnd(after_cull)],
        max_epochs=6,
    )
    assert stages(callback) == {SEED: "CULLED"}
    assert without
    cull = next(e for e in events if getattr(e, "now", None) == Stage.CULLED)
    assert cull.epoch == 5
    assert "counterfactual gain 0.0000" in cull.cause


def test_without_veto_a_useless_seed_is_kept(tmp_path: Path) -> None:
    """veto=False keeps what the counterfactual would have culled."""
    callback = esper(tmp_path / "run", schedule=USELESS, veto=False)
    fit(MLP, [callback], max_epochs=6)
    assert stages(callback) == {SEED: "FOSSILIZED"}


def test_a_useful_seed_becomes_part_of_the_model(tmp_path: Path) -> None:
    """A seed that held-out batches miss passes its counterfactual and trains on to the end."""

    class LinearHost(MLP):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(6, 6))
            self.head = nn.Linear(6, 3)

        @staticmethod
        def data(length: int, rng_seed: int) -> TensorDataset:
            inputs = tabular(4 * length, rng_seed).tensors[0]
            return TensorDataset(inputs, (inputs[:, 0] * inputs[:, 1] > 0).long())

    callback = esper(tmp_path / "run", schedule=PLANT, trial_steps=(200,))
    _, model = fit(LinearHost, [callback], max_epochs=7)
    (seed,) = callback.report()["seeds"]
    assert stages(callback) == {SEED: "FOSSILIZED"}, seed
    assert seed["counterfactual_gain"] > 0.1
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert weights(model)[f"{SITE}.esper.0.alpha"] == 1.0
