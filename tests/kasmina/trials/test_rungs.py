"""How far the candidates of a race are trained, and on how much of each batch."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from torch import Tensor, nn

from kasmina import RaceRules
from tests.kasmina.growing import Xor, xor_batches
from tests.kasmina.racing import TRAIN, entries, measured, race

KINDS = ["low_rank", "norm", "bottleneck_mlp", "widen", "gated_mlp"]


def test_a_quarter_as_many_go_on_after_each_later_rung() -> None:
    """Of nine four, one and, as there must be one, one go on."""
    model, x = Xor(), TRAIN[0][0]
    wanted = [f"body:{KINDS[n % len(KINDS)]}" for n in range(9)]
    rules = RaceRules((2, 4, 6, 8), keep=4, batch_pieces=1, clear_errors=math.inf)
    trials, _ = race(model, entries(model, x, *wanted), rules=rules)
    assert Counter(trial.steps for trial in trials.values()) == {2: 5, 4: 3, 8: 1}


def test_of_few_at_most_half_go_on() -> None:
    """Of five three and two go on, though sixteen and four might."""
    model, x = Xor(), TRAIN[0][0]
    rules = RaceRules((2, 4, 6), keep=16, batch_pieces=1, clear_errors=math.inf)
    candidates = entries(model, x, *(f"body:{kind}" for kind in KINDS))
    trials, _ = race(model, candidates, rules=rules)
    assert Counter(trial.steps for trial in trials.values()) == {2: 2, 4: 1, 6: 2}


def test_a_step_takes_a_piece_of_a_batch() -> None:
    """The race on whole batches cut in two is, to the bit, the one on the halves."""
    model, x = Xor(), TRAIN[0][0]
    some = entries(model, x, "body:low_rank", "body:norm")
    halves = [tuple(part[i : i + 32] for part in batch) for batch in TRAIN for i in (0, 32)]
    cut = race(model, some, rules=RaceRules((20,), batch_pieces=2))
    by_hand = race(model, some, rules=RaceRules((20,), batch_pieces=1), train_batches=halves)
    assert measured(cut[0]) == measured(by_hand[0])
    whole = race(model, some, rules=RaceRules((20,), batch_pieces=1))
    assert cut[1] < whole[1]


def test_a_batch_of_few_rows_stays_whole() -> None:
    """A piece has eight rows at least."""
    model = Xor()
    few = xor_batches(4, rng_seed=1, size=15)
    some = entries(model, few[0][0], "body:norm")
    cut = race(model, some, rules=RaceRules((4,), batch_pieces=2), train_batches=few)
    whole = race(model, some, rules=RaceRules((4,), batch_pieces=1), train_batches=few)
    assert measured(cut[0]) == measured(whole[0])


def test_a_loss_across_the_rows_keeps_its_batches_whole() -> None:
    """Half a batch would have another loss."""

    def across(model: nn.Module, batch: Any) -> Tensor:
        return model(batch[0]).softmax(0).square().mean()

    model, x = Xor(), TRAIN[0][0]
    some = entries(model, x, "body:low_rank")
    cut = race(model, some, loss=across, rules=RaceRules((6,), batch_pieces=2))
    whole = race(model, some, loss=across, rules=RaceRules((6,), batch_pieces=1))
    assert measured(cut[0]) == measured(whole[0])
