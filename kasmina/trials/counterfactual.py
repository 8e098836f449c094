"""The counterfactual: the same held-out batches with a settled seed's alpha forced to 0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from kasmina.rng import isolated_rng
from kasmina.slots.grafted_seed import GraftedSeed
from kasmina.slots.slot import attached_seeds
from kasmina.trials.flops import FlopLedger, count_flops
from kasmina.trials.race import cut
from kasmina.trials.shadow import Shadow, paired_gain
from kasmina.trials.task import Task

MIN_PAIRS: Final = 4
"""Held-out pieces below which there is no measurement: the error of so few means nothing."""


def counterfactual_gains(
    task: Task, seeds: Sequence[str], held_out: Sequence[Any], ledger: FlopLedger
) -> dict[str, tuple[float, float]]:
    """Measure what the live model loses on held-out batches when one seed is switched off.

    Only a veto may rest on it: once the host leans on a seed the figure is inflated.

    Args:
        seeds: names of seeds that are attached with alpha above 0.
        held_out: held-out batches; cut into pieces where that leaves the loss alone.
        ledger: takes the FLOPs.

    Returns:
        For each seed (gain, standard error) in the loss's unit: loss without it minus loss as it
        is. Fewer than MIN_PAIRS pieces tell only of a seed that is not finite. The live model is
        not touched: the passes run on a copy.
    """
    shadow = Shadow(task)
    held_out = cut(shadow, held_out)
    of_one = count_flops(lambda: _losses(shadow, held_out[:1]))
    ledger.total += of_one * (1 + len(held_out) * (1 + len(seeds)))
    as_it_is = _losses(shadow, held_out)
    held = attached_seeds(shadow.model)
    gains = {}
    for name in seeds:
        without = _losses_without(shadow, held[name].seed, held_out)
        if bool(torch.isfinite(without).all()) and not bool(torch.isfinite(as_it_is).all()):
            gains[name] = -math.inf, 0.0  # the host is sound without it, and not with it
        elif len(held_out) >= MIN_PAIRS:
            gains[name] = paired_gain(without, as_it_is)
    return gains


def _losses(shadow: Shadow, held_out: Sequence[Any]) -> Tensor:
    with isolated_rng(0):
        return shadow.held_out_losses(held_out)


def _losses_without(shadow: Shadow, seed: GraftedSeed, held_out: Sequence[Any]) -> Tensor:
    was_active, seed.active = seed.active, False
    try:
        return _losses(shadow, held_out)
    finally:
        seed.active = was_active
