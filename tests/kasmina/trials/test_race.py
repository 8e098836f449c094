"""Races: the live run does not notice, the useful candidate wins, the broken one is out."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import kasmina
from kasmina import FunctionTask, OptimizerRecipe, RaceRules, discover
from kasmina.blueprints import catalogue
from kasmina.trials.race import HELD_OUT_PIECES, cut
from kasmina.trials.shadow import Shadow
from leyline import TrialError
from tests.kasmina.growing import (
    Raises,
    Xor,
    cross_entropy,
    everything,
    grow,
    state_bits,
    xor_batches,
)
from tests.kasmina.hosts import HOSTS, Host, ResNet
from tests.kasmina.racing import (
    HELD_OUT,
    RULES,
    TRAIN,
    assert_close,
    entries,
    measured,
    race,
    whole,
)


@pytest.fixture
def own_blueprints() -> Iterator[None]:
    """Candidates that fail in training, late, in eval, or by their numbers."""
    held = dict(catalogue._blueprints)

    def awaits(function: Callable[[nn.Module, Tensor], Any]) -> Callable[[Any], nn.Module]:
        return lambda shape: Late(function)

    kasmina.register("raises", lambda shape: Raises())
    kasmina.register("nan", awaits(lambda m, x: x * torch.nan))
    kasmina.register("nan_in_eval", awaits(lambda m, x: x * (0.0 if m.training else torch.nan)))
    kasmina.register("late", awaits(lambda m, x: x * m.weight if m.calls < 70 else 1 / 0))
    yield
    catalogue._blueprints.clear()
    catalogue._blueprints.update(held)


class Late(nn.Module):
    def __init__(self, function: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.function = function
        self.calls = 0

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        return self.function(self, x) + 0 * self.weight


def regression(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).square().mean()


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_a_race_leaves_the_live_model_alone(host: Host) -> None:
    """Weights, buffers, gradients, modes and every random stream are bit-identical after it."""
    model, x = host.build(), host.example()
    grow(model, host.site, x, alpha=0.5, number=7)
    model(x).sum().backward()
    candidates = entries(model, x, f"{host.site}:low_rank", f"{host.site}:norm")
    before = everything(model)
    trials, _ = race(
        model,
        candidates,
        loss=regression,
        train_batches=[x],
        held_out=[x],
        rules=RaceRules((3, 6), 1),
    )
    assert everything(model) == before
    assert [t.fault for t in trials.values()] == [None, None]
    assert max(t.steps for t in trials.values()) == 6


def test_later_training_is_bit_identical_with_and_without_races() -> None:
    """Paired run with dropout and running statistics: same losses, same weights, to the bit."""
    x = HOSTS["resnet"].example()
    y = torch.tensor([0, 1, 2, 3])
    runs = []
    for races in (False, True):
        torch.manual_seed(0)
        model = ResNet()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        losses = []
        for _ in range(3):
            for _ in range(3):
                optimizer.zero_grad()
                loss = cross_entropy(model, (x, y))
                loss.backward()
                optimizer.step()
                losses.append(loss.item().hex())
            if races:
                batches = [(x, y)]
                race(
                    model,
                    entries(model, x, "blocks.0:conv", "stem:norm"),
                    train_batches=batches,
                    held_out=batches,
                    rules=RaceRules((2,), 1),
                )
        runs.append((losses, state_bits(model.state_dict())))
    assert runs[0] == runs[1]


def test_the_useful_candidate_wins_by_more_than_its_noise() -> None:
    """Only a nonlinear seed can help; it gains many standard errors, a linear one nothing."""
    model = Xor()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for batch in TRAIN * 10:
        optimizer.zero_grad()
        cross_entropy(model, batch).backward()
        optimizer.step()
    candidates = entries(model, TRAIN[0][0], "body:bottleneck_mlp", "head:low_rank")
    trials, _ = race(model, candidates, rules=RaceRules((50, 300), 2))
    useful, useless = trials.values()
    assert useful.gain > 0.2
    assert useful.gain > 5 * useful.gain_error > 0
    assert abs(useless.gain) < 0.1


def test_the_gain_is_what_two_evaluations_by_hand_give() -> None:
    """Loss of the bare model minus loss with the trained seed, batch by batch, in eval mode."""
    model = Xor()
    trials, _ = race(model, entries(model, TRAIN[0][0], "body:bottleneck_mlp"))
    (trial,) = trials.values()
    grown = copy.deepcopy(model)
    body = grown.body
    grown.body = nn.Sequential(body, Residual(trial.module.body))
    differences = [
        (cross_entropy(model, piece) - cross_entropy(grown, piece)).item()
        for piece in cut(Shadow(FunctionTask(model, cross_entropy)), HELD_OUT)
    ]
    assert len(differences) == HELD_OUT_PIECES
    assert trial.gain == pytest.approx(sum(differences) / len(differences), abs=1e-6)


class Residual(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def test_the_same_inputs_give_the_same_race() -> None:
    """Gains, steps, FLOPs and trained weights are bit-identical, whatever was drawn before."""
    torch.manual_seed(4)
    model = Xor()
    candidates = entries(model, TRAIN[0][0], "body:low_rank", "body:bottleneck_mlp", "head:norm")
    first, first_flops = race(model, candidates)
    torch.rand(5)
    second, second_flops = race(model, candidates)
    assert measured(first) == measured(second)
    assert first_flops == second_flops


@pytest.mark.usefixtures("own_blueprints")
@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        ("raises", "ValueError: no luck today"),
        ("nan", "not finite"),
        ("nan_in_eval", "not finite"),
        ("late", "ZeroDivisionError"),
    ],
)
def test_a_broken_candidate_leaves_and_the_others_do_not_notice(broken: str, fault: str) -> None:
    """It has a fault and no gain; the others come out as in a race without it, up to rounding."""
    torch.manual_seed(0)
    model = Xor()
    x = TRAIN[0][0]
    alone, _ = race(model, entries(model, x, "body:low_rank", "head:norm"))
    sites = {site.name: site for site in discover(model, (x,))}
    beside = {
        "body/0": (sites["body"], "low_rank", 1),
        "body/9": (sites["body"], broken, 1),
        "head/1": (sites["head"], "norm", 1),
    }
    rules = replace(RULES, keep=3)
    trials, _ = race(model, beside, rules=rules)
    outcome = trials.pop("body/9")
    assert outcome.fault is not None
    assert fault in outcome.fault
    assert math.isnan(outcome.gain)
    assert math.isnan(outcome.gain_error)
    assert_close(trials, alone)


def test_the_best_go_on_wherever_they_stand() -> None:
    """The one candidate that is kept is the one with the highest gain at the first rung."""
    model, x = Xor(), TRAIN[0][0]
    for wanted in (
        ["body:bottleneck_mlp", "head:low_rank"],
        ["head:low_rank", "body:bottleneck_mlp"],
    ):
        trials, _ = race(model, entries(model, x, *wanted), rules=RaceRules((60, 70), 1))
        best, rest = sorted(trials.values(), key=lambda trial: -trial.gain)
        assert (best.steps, rest.steps) == (70, 60)
        assert best.blueprint == "bottleneck_mlp"


@pytest.mark.usefixtures("own_blueprints")
@pytest.mark.parametrize("broken", ["raises", "nan", "nan_in_eval"])
def test_a_broken_candidate_takes_no_place(broken: str) -> None:
    """With one place in the next rung it goes to the one that works."""
    model, x = Xor(), TRAIN[0][0]
    trials, _ = race(
        model, entries(model, x, f"body:{broken}", "body:norm"), rules=RaceRules((2, 5), 1)
    )
    assert [trial.steps == 5 for trial in trials.values()] == [False, True]


def test_only_the_best_go_on_and_ties_keep_their_order() -> None:
    """Losers keep the gain they had at their rung; of equals the first of the catalogue stays."""
    model, x = Xor(), TRAIN[0][0]
    still = OptimizerRecipe(torch.optim.SGD, {"lr": 0.0})
    wanted = ["body:norm", "head:norm", "body:low_rank", "head:low_rank"]
    trials, _ = race(model, entries(model, x, *wanted), recipe=still, rules=RaceRules((2, 5), 2))
    assert [t.gain for t in trials.values()] == [0.0] * 4
    assert [t.steps for t in trials.values()] == [5, 5, 2, 2]


def test_trials_go_round_the_batches_in_order() -> None:
    """Trial step i takes the i-th live batch, round and round, across rungs too."""
    model = Xor()
    candidates = entries(model, TRAIN[0][0], "body:norm")
    rules = RaceRules((4, 7), 1)
    few, _ = race(model, candidates, train_batches=TRAIN[:3], rules=rules)
    many, _ = race(model, candidates, train_batches=[*TRAIN[:3], *TRAIN[:3], TRAIN[0]], rules=rules)
    other, _ = race(model, candidates, train_batches=[*TRAIN[:3], *TRAIN[1:3]], rules=rules)
    assert measured(few) == measured(many)
    assert measured(few) != measured(other)


def test_a_random_loss_is_paired_too() -> None:
    """A loss that draws numbers draws the same with and without the seed: no gain, no noise."""

    def noisy(model: nn.Module, batch: Any) -> Tensor:
        return cross_entropy(model, batch) + torch.rand(())

    model = Xor()
    still = OptimizerRecipe(torch.optim.SGD, {"lr": 0.0})
    trials, _ = race(model, entries(model, TRAIN[0][0], "body:norm"), loss=noisy, recipe=still)
    assert [(t.gain, t.gain_error) for t in trials.values()] == [(0.0, 0.0)]


class Running(Xor):
    """A running mean of its own making, which moves in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.body(x)
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * hidden.detach().mean(0)
        return self.head(hidden - self.mean)


@pytest.mark.parametrize("rules", [RULES, whole(RULES)], ids=["shared", "alone"])
def test_what_moves_in_training_is_no_gain(rules: RaceRules) -> None:
    """Statistics that trial steps moved are put back before anything is measured."""
    torch.manual_seed(0)
    model = Running()
    still = OptimizerRecipe(torch.optim.SGD, {"lr": 0.0})
    candidates = entries(model, TRAIN[0][0], "body:norm", "head:norm")
    trials, _ = race(model, candidates, recipe=still, rules=rules)
    assert [(t.gain, t.gain_error) for t in trials.values()] == [(0.0, 0.0)] * 2


def test_flops_are_those_of_what_was_run() -> None:
    """Alone: steps times a step's FLOPs; together a pass of two costs less than two passes."""
    model, x = Xor(), TRAIN[0][0]
    one = entries(model, x, "body:low_rank")
    counted = {n: race(model, one, rules=whole(RaceRules((n,), 1)))[1] for n in (5, 25, 45)}
    assert counted[45] - counted[25] == counted[25] - counted[5] > 0
    both = entries(model, x, "head:low_rank", "head:norm")
    shared, apart = (race(model, both, rules=rules)[1] for rules in (RULES, whole(RULES)))
    assert shared < apart


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"loss": lambda model, batch: model.missing(batch)}, "the loss fails on a copy: Attrib"),
        ({"loss": lambda model, batch: 1.0}, "the loss fails on a copy: AttributeError"),
        ({"loss": None}, "no loss_fn was given"),
        ({"train_batches": []}, "no training batches were seen"),
        ({"held_out": []}, "no held-out batches were seen"),
    ],
)
def test_no_trial_is_possible_and_why(changed: dict[str, Any], reason: str) -> None:
    """A task that cannot be tried is one TrialError with the reason; the model is untouched."""
    model = Xor()
    before = everything(model)
    with pytest.raises(TrialError, match=rf"^no trial: .*{reason}"):
        race(model, entries(model, TRAIN[0][0], "body:norm"), **changed)
    assert everything(model) == before


def test_held_out_batches_are_cut_into_pairs() -> None:
    """Few batches become at least 32 pieces, many stay as they are."""
    shadow = Shadow(FunctionTask(Xor(), cross_entropy))
    assert len(cut(shadow, HELD_OUT)) == HELD_OUT_PIECES
    assert len(cut(shadow, xor_batches(40, 0))) == 40
    assert cut(shadow, []) == []


def contrastive(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """A loss over the other rows of the batch: 0 for a single one."""
    embedded = model(batch[0])
    return nn.functional.cross_entropy(embedded @ embedded.T, torch.arange(len(embedded)))


def with_listed_labels(model: nn.Module, batch: dict[str, object]) -> torch.Tensor:
    """A loss that pairs rows with a list, which is not cut with the tensors."""
    pairs = zip(model(batch["x"]), batch["y"], strict=False)  # type: ignore[call-overload]
    losses = [nn.functional.cross_entropy(row[None], torch.tensor([y])) for row, y in pairs]
    return torch.stack(losses).mean()


def test_a_batch_stays_whole_where_cutting_changes_the_loss() -> None:
    """A loss that looks across rows, or at a list beside the tensors, is kept whole."""
    whole = HELD_OUT[:1]
    listed = [{"x": x, "y": y.tolist()} for x, y in whole]

    assert cut(Shadow(FunctionTask(Xor(), contrastive)), whole) == whole
    assert cut(Shadow(FunctionTask(Xor(), with_listed_labels)), listed) == listed
