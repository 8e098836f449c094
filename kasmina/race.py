"""The race of trials: successive halving over candidates, on held-out gain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kasmina.batches import pieces
from kasmina.flops import count_flops
from kasmina.rng import isolated_rng
from kasmina.shadow import HELD_OUT_RNG_SEED, Shadow
from kasmina.trial import Trial

HELD_OUT_PIECES = 32
"""Pieces that held-out batches are cut into, at least: pairs for the standard error."""


@dataclass(frozen=True)
class RaceRules:
    """How far candidates are trained, and how many go on. Budgeted in steps, never in seconds."""

    rung_steps: tuple[int, ...] = (50, 200)
    """Steps each candidate has been trained for in all, at the end of each rung."""
    keep: int = 4
    """Candidates that go on to the next rung."""


def cut(held_out: Sequence[Any]) -> list[Any]:
    """Held-out batches as at least HELD_OUT_PIECES pieces, where they can be cut."""
    each = math.ceil(HELD_OUT_PIECES / max(1, len(held_out)))
    return [piece for batch in held_out for piece in pieces(batch, each)]


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
