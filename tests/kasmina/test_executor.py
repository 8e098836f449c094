"""The executor: a whole life by commands, and refusals that change nothing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from torch import nn

import kasmina
from kasmina import OptimizerRecipe
from kasmina.blueprints import catalogue
from kasmina.slots.slot import attached_seeds
from leyline import Command, Stage
from tests.kasmina.grower import (
    HELD_OUT,
    SEED,
    TRAIN,
    Grower,
    X,
    advance,
    cull,
    germinate,
)
from tests.kasmina.growing import (
    Raises,
    bits,
    cross_entropy,
    state_bits,
)


@pytest.fixture
def broken() -> Iterator[None]:
    """A blueprint that raises in forward, as soon as it is told to."""
    held = dict(catalogue._blueprints)
    kasmina.register("broken", lambda shape: Raises())
    yield
    catalogue._blueprints.clear()
    catalogue._blueprints.update(held)


def test_a_whole_life(grower: Grower) -> None:
    """Every stage is reached by its command, the host is extended, and no stage is skipped."""
    bare = grower.model(X)
    grower.to(Stage.TRAINING)
    assert attached_seeds(grower.model) == {}
    assert bits(grower.model(X)) == bits(bare)
    grower.to(Stage.GRAFTING)
    assert bits(grower.model(X)) == bits(bare)
    assert grower.ramp() == [0.25, 0.5, 0.75, 1.0]
    assert float(grower.held().alpha) == 1.0
    grower.to(Stage.FOSSILIZED)
    assert bits(grower.model(X)) != bits(bare)
    numbers = [Stage(n) for n in range(8)]
    assert grower.table.history(SEED) == list(pairwise(numbers))
    size = grower.executor.grounds.size("body", "bottleneck_mlp")
    assert grower.executor.grown_parameters() == grower.table.get(SEED, "parameters") == size
    live = grower.executor.live_seeds()[SEED]
    assert (live.site, live.trainable) == ("body", True)
    assert list(live.parameters) == list(grower.held().parameters())


def test_a_report_tells_what_was_done(grower: Grower) -> None:
    """From, to, site, blueprint, size and cause of a transition that was made."""
    (report,) = grower.apply(germinate())
    assert (report.was, report.now) == (Stage.DORMANT, Stage.GERMINATED)
    assert (report.seed, report.site, report.blueprint) == (SEED, "body", "bottleneck_mlp")
    assert report.parameters == grower.executor.grounds.size("body", "bottleneck_mlp")
    assert (report.cause, report.refused) == ("test", "")


LIVE = [Stage.GRAFTING, Stage.STABILIZATION, Stage.EVALUATING, Stage.FINE_TUNING]


@pytest.mark.parametrize("stage", [Stage.TRAINING, *LIVE])
def test_freezing_and_thawing(grower: Grower, stage: Stage) -> None:
    """Weights train in GRAFTING and FINE_TUNING only; a transition leaves no gradient behind."""
    grower.to(stage)
    trains = stage in (Stage.GRAFTING, Stage.FINE_TUNING)
    if stage is Stage.TRAINING:
        assert grower.executor.live_seeds() == {}
        return
    assert all(p.requires_grad is trains and p.grad is None for p in grower.held().parameters())
    assert grower.executor.live_seeds()[SEED].trainable is trains
    grower.ramp()
    cross_entropy(grower.model, TRAIN[0]).backward()
    assert all((p.grad is not None) is trains for p in grower.held().parameters())
    assert grower.model.body.weight.grad is not None


def test_a_left_gradient_is_cleared_when_a_seed_is_frozen(grower: Grower) -> None:
    """A gradient from the last GRAFTING step cannot move the weight in STABILIZATION."""
    grower.to(Stage.GRAFTING)
    grower.ramp()
    cross_entropy(grower.model, TRAIN[0]).backward()
    assert all(p.grad is not None for p in grower.held().parameters())
    grower.apply(advance(Stage.STABILIZATION))
    assert grower.stage() is Stage.STABILIZATION
    assert all(p.grad is None and not p.requires_grad for p in grower.held().parameters())


REFUSED: list[tuple[Stage, Command, str]] = [
    (Stage.TRAINING, germinate(), "no such transition"),
    (Stage.TRAINING, germinate("nowhere/0"), "'nowhere' is not a site"),
    (Stage.TRAINING, germinate("head/0", site="body"), "name it 'body/'"),
    (Stage.TRAINING, germinate("body/a.b"), "name it 'body/'"),
    (Stage.TRAINING, germinate("body/\u0663"), "name it 'body/'"),
    (Stage.TRAINING, germinate(f"body/1{9 * '0'}"), "name it 'body/'"),
    (Stage.TRAINING, germinate("body/01"), "name it 'body/'"),
    (Stage.TRAINING, germinate("body/1", "conv"), "'conv' does not fit"),
    (Stage.TRAINING, germinate("body/1", "nonsense"), "'nonsense' is not registered"),
    (Stage.TRAINING, advance(Stage.GRAFTING), "trial has neither been measured nor waived"),
    (Stage.TRAINING, advance(Stage.FOSSILIZED), "no such transition"),
    (Stage.TRAINING, advance(99), "no such stage"),
    (Stage.TRAINING, advance(-1), "no such stage"),
    (Stage.TRAINING, advance(Stage.GERMINATED), "germinate command"),
    (Stage.TRAINING, advance(Stage.GRAFTING, "body/7"), "there is no seed 'body/7'"),
    (Stage.TRAINING, cull("body/7"), "there is no seed 'body/7'"),
    (Stage.TRAINING, advance(Stage.ROLLED_BACK), "no such transition"),
    (Stage.GERMINATED, cull(), "no such transition"),
    (Stage.GERMINATED, advance(Stage.TRAINING), "has not been proven"),
    (Stage.GRAFTING, advance(Stage.STABILIZATION), "its alpha is 0, not 1"),
    (Stage.EVALUATING, advance(Stage.FINE_TUNING), "has not been measured"),
    (Stage.EVALUATING, cull(), "has not been measured"),
    (Stage.EVALUATING, advance(Stage.CULLED), "has not been measured"),
    (Stage.FOSSILIZED, cull(), "no such transition"),
]


@pytest.mark.parametrize(("stage", "command", "reason"), REFUSED)
def test_a_refused_command_changes_nothing(
    grower: Grower, stage: Stage, command: Command, reason: str
) -> None:
    """Table, ramps, model, gradients and random streams stay; the report says why; others go on."""
    grower.to(stage)
    before = grower.picture()
    (report,) = grower.apply(command)
    assert reason in report.refused
    assert report.was == report.now
    assert grower.picture() == before
    reports = grower.apply(command, germinate("head/3", "low_rank"))
    assert [bool(r.refused) for r in reports] == [True, False]
    assert grower.stage("head/3") is Stage.GERMINATED


def test_a_transition_that_must_wait_is_refused(grower: Grower) -> None:
    """Two stages of one epoch each cannot both end at one boundary."""
    grower.to(Stage.GRAFTING)
    grower.ramp()
    reports = grower.apply(advance(Stage.STABILIZATION), advance(Stage.EVALUATING))
    assert [r.refused for r in reports[:1]] == [""]
    assert "stayed 0 of at least 1 epochs" in reports[1].refused


def test_a_site_that_refuses_at_the_graft_leaves_the_row(grower: Grower) -> None:
    """A forward patched since the survey: refused, reported, and the next step is not disturbed."""
    grower.to(Stage.TRAINING)
    grower.race()
    grower.model.body.forward = nn.functional.relu  # type: ignore[method-assign] # the case
    (report,) = grower.apply(advance(Stage.GRAFTING))
    assert "patched" in report.refused
    assert grower.stage() is Stage.TRAINING
    assert attached_seeds(grower.model) == {}
    grower.executor.after_step()
    assert len(grower.executor.take_moments(SEED)) == 0


@pytest.mark.parametrize("stage", [*LIVE[:2], LIVE[3]])
@pytest.mark.parametrize("way", ["cull", "advance", "roll_back"])
def test_a_cull_leaves_nothing_behind(grower: Grower, stage: Stage, way: str) -> None:
    """No key, parameter, ramp or class; the output is bit for bit that with alpha 0."""
    keys, kind = list(grower.model.state_dict()), type(grower.model.body)
    grower.to(stage)
    seed = grower.held()
    alpha = float(seed.alpha)
    seed.blend(0.0)
    without = bits(grower.model(X))
    seed.blend(alpha)
    to = Stage.CULLED if stage is Stage.FINE_TUNING and way != "roll_back" else Stage.ROLLED_BACK
    if way == "cull":
        (report,) = grower.apply(cull())
    elif way == "advance":
        (report,) = grower.apply(advance(to))
    else:
        report = grower.executor.roll_back(SEED, grower.epoch, "test", 2)
    assert report.refused == ""
    assert report.now == grower.stage() == to
    assert list(grower.model.state_dict()) == keys
    assert type(grower.model.body) is kind
    assert bits(grower.model(X)) == without
    assert grower.executor.grown_parameters() == 0
    assert grower.executor.live_seeds() == {}
    assert grower.executor.state_dict()["ramps"] == {}
    assert grower.table.get(SEED, "alpha") == 0.0
    grower.executor.after_step()


def test_an_embargo_is_waited_for_and_a_cancelled_place_is_free_at_once(grower: Grower) -> None:
    """Culled for two epochs: planted again in the third; cancelled: at the next boundary."""
    grower.to(Stage.TRAINING)
    assert not grower.apply(cull(epochs=2))[0].refused
    for left in (1, 0):
        assert "no such transition" in grower.apply(germinate())[-1].refused
        grower.end_epoch()
        assert grower.table.get(SEED, "embargo_epochs_left") == left
    released, planted = grower.apply(germinate())
    assert (released.now, planted.now) == (Stage.DORMANT, Stage.GERMINATED)
    grower.apply(advance(Stage.CANCELLED))
    released, planted = grower.apply(germinate(blueprint="norm"))
    assert (released.was, planted.now) == (Stage.CANCELLED, Stage.GERMINATED)
    assert planted.blueprint == "norm"
    assert math.isnan(grower.table.get(SEED, "trial_gain"))


def test_what_was_trained_is_what_is_grafted(grower: Grower) -> None:
    """Weights and optimizer moments are those of the trial, to the bit, and are handed on once."""
    grower.to(Stage.TRAINING)
    flops = grower.race()
    assert flops > 0
    trial = grower.executor.nursery.trial(SEED)
    assert trial is not None
    assert grower.table.get(SEED, "trial_steps") == trial.steps == 10
    assert grower.table.get(SEED, "trial_gain") == pytest.approx(trial.gain)
    trained = state_bits(trial.module.body.state_dict())
    expected = [
        {name: bits(value) for name, value in trial.optimizer.state[p].items()}
        for p in trial.module.body.parameters()
    ]
    grower.apply(advance(Stage.GRAFTING))
    assert state_bits(grower.held().body.state_dict()) == trained
    moments = grower.executor.take_moments(SEED)
    assert [{n: bits(v) for n, v in m.items()} for m in moments] == expected
    assert {"exp_avg", "exp_avg_sq", "step"} <= set(moments[0])
    assert len(moments) == len(list(grower.held().parameters()))
    assert len(grower.executor.take_moments(SEED)) == 0
    assert grower.executor.nursery.trial(SEED) is None


def test_a_waived_trial_grafts_the_seed_as_born(grower: Grower) -> None:
    """Where no trial is possible the body is zero at birth and has no moments."""
    grower.to(Stage.TRAINING)
    grower.executor.trials_waived = "no trial: test"
    assert not grower.apply(advance(Stage.GRAFTING))[0].refused
    grower.ramp()
    assert torch.equal(grower.held().body(torch.randn(3, 8)), torch.zeros(3, 8))
    assert len(grower.executor.take_moments(SEED)) == 0


@pytest.mark.usefixtures("broken")
def test_a_blueprint_that_fails_its_proof_is_cancelled(grower: Grower) -> None:
    """Its fault is the cause, its error is counted, its neighbour goes on."""
    grower.apply(germinate(blueprint="broken"), germinate("head/0", "low_rank"))
    bad, good = grower.executor.prove(grower.epoch)
    assert (bad.now, good.now) == (Stage.CANCELLED, Stage.TRAINING)
    assert bad.cause == "blueprint fault: ValueError: no luck today"
    assert grower.table.get(SEED, "error_count") == 1
    grower.apply()
    assert grower.stage() is Stage.DORMANT


def test_a_candidate_that_failed_its_trial_cannot_be_grafted(grower: Grower) -> None:
    """Its fault is listed, its gain is not measured, and an advance is refused."""
    grower.to(Stage.TRAINING)
    grower.to(Stage.TRAINING, "head/0", "low_rank")
    grower.race(OptimizerRecipe(torch.optim.SGD, {"lr": math.inf}))
    faults = grower.executor.trial_faults()
    assert set(faults) == {SEED, "head/0"}
    assert grower.table.get(SEED, "error_count") == 1
    (report,) = grower.apply(advance(Stage.GRAFTING))
    assert "neither been measured" in report.refused
    assert attached_seeds(grower.model) == {}


@pytest.fixture
def worn_out() -> Iterator[None]:
    """A blueprint whose factory fails from the third call on: it is counted and proven, no more."""
    held = dict(catalogue._blueprints)
    calls = itertools.count(1)

    def factory(shape: kasmina.SiteShape) -> nn.Module:
        if next(calls) > 2:
            raise RuntimeError("worn out")
        return nn.Linear(shape.channels, shape.channels)

    kasmina.register("worn_out", factory, accepts=lambda shape: shape.channels == 8)
    yield
    catalogue._blueprints.clear()
    catalogue._blueprints.update(held)


@pytest.mark.usefixtures("worn_out")
@pytest.mark.parametrize("others", [("head/0",), ()])
def test_a_seed_that_cannot_be_built_again_leaves_the_race(others: tuple[str, ...]) -> None:
    """As a fault of its own, with nothing measured; the other candidates, if any, have theirs."""
    grower = Grower()
    for seed in others:
        grower.to(Stage.TRAINING, seed, "low_rank")
    grower.to(Stage.TRAINING, SEED, "worn_out")
    grower.race()
    assert grower.executor.trial_faults() == {SEED: "RuntimeError: worn out"}
    assert grower.table.get(SEED, "error_count") == 1
    assert math.isnan(grower.table.get(SEED, "trial_gain"))
    for seed in others:
        assert grower.table.get(seed, "error_count") == 0
        assert math.isfinite(grower.table.get(seed, "trial_gain"))
    (report,) = grower.apply(advance(Stage.GRAFTING))
    assert "neither been measured" in report.refused


@pytest.mark.parametrize("stage", LIVE)
def test_a_fault_in_the_live_model_withdraws_the_seed(grower: Grower, stage: Stage) -> None:
    """From every live stage, measured or not; the output is the bare host's."""
    grower.to(stage)
    grower.held().body = Raises()
    grower.held().blend(1.0)
    y = grower.model(X)
    (report,) = grower.executor.withdraw_faulted(grower.epoch, embargo_epochs=3)
    assert "ValueError: no luck today" in report.cause
    assert report.now in (Stage.CULLED, Stage.ROLLED_BACK)
    assert attached_seeds(grower.model) == {}
    assert bits(grower.model(X)) == bits(y)
    assert grower.table.get(SEED, "embargo_epochs_left") == 3
    assert grower.executor.withdraw_faulted(grower.epoch, 3) == []


def test_counterfactuals_are_measured_in_evaluating_only(grower: Grower) -> None:
    """The figures go into the table; without held-out batches they stay unmeasured."""
    grower.to(Stage.STABILIZATION)
    assert grower.executor.measure_counterfactuals(grower.task, HELD_OUT) == 0
    grower.to(Stage.EVALUATING)
    assert grower.executor.measure_counterfactuals(grower.task, []) == 0
    assert math.isnan(grower.table.get(SEED, "counterfactual_gain"))
    assert grower.executor.measure_counterfactuals(grower.task, HELD_OUT) > 0
    assert math.isfinite(grower.table.get(SEED, "counterfactual_gain"))
    assert grower.table.get(SEED, "counterfactual_error") > 0


def test_after_step_costs_nothing_once_the_ramp_is_over(grower: Grower) -> None:
    """No ramp is held for a seed that has left GRAFTING, so the model is not walked again."""
    grower.to(Stage.STABILIZATION)
    assert grower.executor.state_dict()["ramps"] == {}
    before = grower.picture()
    grower.executor.after_step()
    assert grower.picture() == before
