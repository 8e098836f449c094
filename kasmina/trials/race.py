"""The race of trials: successive halving over candidates, on held-out gain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from kasmina.guard import attempt
from kasmina.rng import isolated_rng
from kasmina.trials.batches import joined, pieces
from kasmina.trials.flops import count_flops
from kasmina.trials.shadow import HELD_OUT_RNG_SEED, Shadow
from kasmina.trials.trial import Trial

HELD_OUT_PIECES = 32
"""Pieces that held-out batches are cut into, at least: pairs for the standard error."""


@dataclass(frozen=True)
class RaceRules:
    """How far candidates are trained, and how many go on. Budgeted in steps, never in seconds."""

    rung_steps: tuple[int, ...] = (50, 200)
    """Steps each candidate has been trained for in all, at the end of each rung."""
    keep: int = 4
    """Candidates that go on to the next rung."""


def cut(shadow: Shadow, held_out: Sequence[Any]) -> list[Any]:
    """Held-out batches as at least HELD_OUT_PIECES pieces, where cutting leaves the loss alone.

    A loss that looks across the rows of a batch (contrastive, graphs) or at something that was
    not cut with them (a list beside the tensors) is another loss on a piece; such batches stay
    whole. Tried on the first batch.
    """
    each = math.ceil(HELD_OUT_PIECES / max(1, len(held_out)))
    if each == 1 or not held_out:
        return list(held_out)
    first = pieces(held_out[0], each)
    agrees = attempt(lambda: _loss_agrees(shadow, held_out[0], first))
    if agrees is not True:
        return list(held_out)
    return [piece for batch in held_out for piece in pieces(batch, each)]


def _loss_agrees(shadow: Shadow, batch: Any, cut_up: Sequence[Any]) -> bool:
    """Whether the mean loss of the pieces is the loss of the rows that they are made of."""
    with isolated_rng(HELD_OUT_RNG_SEED):
        apart = shadow.held_out_losses(cut_up).mean()
    with isolated_rng(HELD_OUT_RNG_SEED):
        together = shadow.held_out_losses([joined(batch, cut_up)]).mean()
    return bool(torch.isclose(apart, together, rtol=1e-3, atol=1e-6))


def run_race(
    shadow: Shadow,
    trials: Sequence[Trial],
    train_batches: Sequence[Any],
    held_out: Sequence[Any],
    rules: RaceRules,
) -> int:
    """Train and measure candidates; each carries its result, a fault included.

    Those that leave at a rung keep the gain they had there.

    Args:
        train_batches: batches of live steps; trial step i takes the i-th, round and round.
        held_out: pieces of held-out batches, as `cut` gives them.

    Returns:
        FLOPs spent, held-out passes included.

    Raises:
        Exception: whatever the task's own loss raises on the bare shadow: no trial is possible.
    """
    with isolated_rng(HELD_OUT_RNG_SEED):
        before = shadow.held_out_losses(held_out)
        flops_of_a_pass = count_flops(lambda: shadow.held_out_losses(held_out))
    num_passes = 2
    racing = list(trials)
    for rung, num_steps in enumerate(rules.rung_steps):
        for trial in racing:
            trial.train(shadow, train_batches, num_steps)
            trial.measure(shadow, held_out, before)
            num_passes += 1
        racing = [trial for trial in racing if trial.fault is None]
        if rung < len(rules.rung_steps) - 1:
            # Ties keep the order of the catalogue, so the same run always picks the same.
            racing = sorted(racing, key=lambda trial: -trial.gain)[: rules.keep]
    trained = sum(trial.step_flops * trial.steps for trial in trials)
    return trained + flops_of_a_pass * num_passes
