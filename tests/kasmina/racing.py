"""Help for racing candidates on a model, together or each through the whole host."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kasmina import FunctionTask, OptimizerRecipe, RaceRules, Site, discover
from kasmina.trials.nursery import Nursery
from kasmina.trials.race_report import RaceReport
from kasmina.trials.trial import Trial
from tests.kasmina.growing import cross_entropy, state_bits, xor_batches

RECIPE = OptimizerRecipe(torch.optim.AdamW, {"lr": 0.02})
RULES = RaceRules((10, 40), keep=2, keep_share=1.0, clear_errors=math.inf)
TRAIN, HELD_OUT = xor_batches(8, rng_seed=1), xor_batches(2, rng_seed=2, size=256)


def entries(model: nn.Module, x: Tensor, *wanted: str) -> dict[str, tuple[Site, str, int]]:
    """Candidates "site:blueprint", in order, as germinated in epoch 1."""
    sites = {site.name: site for site in discover(model, (x,))}
    split = [name.split(":") for name in wanted]
    return {f"{s}/{n}": (sites[s], b, 1) for n, (s, b) in enumerate(split)}


def run(
    model: nn.Module, candidates: Mapping[str, tuple[Site, str, int]], **changed: Any
) -> tuple[dict[str, Trial], RaceReport]:
    """Race candidates; what is not given is the exclusive or."""
    nursery = Nursery(model, rng_seed=5)
    task = FunctionTask(model, changed.pop("loss", cross_entropy))
    arguments = {
        "train_batches": TRAIN,
        "held_out": HELD_OUT,
        "recipe": RECIPE,
        "rules": RULES,
        **changed,
    }
    flops = nursery.race(task, candidates, **arguments)
    trials = {seed: nursery.trial(seed) for seed in candidates}
    assert all(trials.values())
    report = nursery.race_report
    assert report is not None
    assert report.flops == flops
    return trials, report  # type: ignore[return-value] # none is None


def race(
    model: nn.Module, candidates: Mapping[str, tuple[Site, str, int]], **changed: Any
) -> tuple[dict[str, Trial], int]:
    """The same with the FLOPs alone."""
    trials, report = run(model, candidates, **changed)
    return trials, report.flops


def measured(trials: Mapping[str, Trial]) -> list[Any]:
    """All that a race found out, to the bit."""
    return [
        (t.steps, t.gain, t.gain_error, t.fault, state_bits(t.module.state_dict()))
        for t in trials.values()
    ]


def whole(rules: RaceRules) -> RaceRules:
    """The same rules with no memory for anything shared: every trial through the whole host."""
    return replace(rules, max_shared_size_bytes=0)


def assert_close(found: Mapping[str, Trial], expected: Mapping[str, Trial]) -> None:
    """Two races of the same candidates ended alike, up to rounding."""
    assert found.keys() == expected.keys()
    for trial, other in zip(found.values(), expected.values(), strict=True):
        assert (trial.steps, trial.fault) == (other.steps, other.fault)
        torch.testing.assert_close(trial.gain, other.gain, rtol=1e-3, atol=1e-5, equal_nan=True)
    ranking = [sorted(trials, key=lambda seed: -trials[seed].gain) for trials in (found, expected)]
    assert ranking[0] == ranking[1]
