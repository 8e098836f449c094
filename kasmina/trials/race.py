"""The race of trials: successive halving over candidates, on held-out gain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kasmina.guard import attempt
from kasmina.rng import isolated_rng
from kasmina.trials.batches import joined, pieces, tensors_in
from kasmina.trials.control import control_gain
from kasmina.trials.flops import FlopLedger
from kasmina.trials.race_report import RaceReport
from kasmina.trials.shadow import HELD_OUT_RNG_SEED, Shadow, paired_gain
from kasmina.trials.sharing import Sharing
from kasmina.trials.trial import OptimizerRecipe, Trial

HELD_OUT_PIECES = 32
"""Pieces that held-out batches are cut into, at least: pairs for the standard error."""
_FEWEST_ROWS = 8
"""Rows that a piece of a training batch has at least: fewer make a step of noise alone."""


@dataclass(frozen=True)
class RaceRules:
    """How far candidates are trained, and how many go on. Budgeted in steps, never in seconds."""

    rung_steps: tuple[int, ...] = (50, 100, 200)
    """Steps each candidate has been trained for in all, at the end of each rung."""
    keep: int = 16
    """Candidates that go on after the first rung, at most; a quarter as many after each later one.
    The first cut is the mild one: the best begin late (docs/decisions/cheaper-races.md)."""
    batch_pieces: int = 2
    """Pieces that a training batch is cut into, a step for each: rows are what a step costs, and
    half of them choose no worse (`python -m bench search`)."""
    keep_share: float = 0.5
    """And at most this share of those that were in the rung, rounded up."""
    control: bool = False
    """Whether the host itself is trained beside the last candidates and its gain told."""
    clear_errors: float = 4.0
    """Standard errors of the paired difference by which a clear winner leads; infinite: never."""
    clear_share: float = 0.5
    """Share of its gain below which the others must stay."""
    max_shared_size_bytes: int = 256 * 1024 * 1024
    """For recorded activations, and again for those of a pass of several candidates."""

    def num_going_on(self, rung: int, num_racing: int) -> int:
        """How many of those in a rung, counted from 0, go on to the next if none is far ahead."""
        return max(1, min(self.keep >> 2 * rung, math.ceil(self.keep_share * num_racing)))


def cut(shadow: Shadow, held_out: Sequence[Any]) -> list[Any]:
    """Held-out batches as at least HELD_OUT_PIECES pieces, where cutting leaves the loss alone."""
    each = math.ceil(HELD_OUT_PIECES / max(1, len(held_out)))
    return _cut(shadow, held_out, min(each, _fewest_rows(held_out)))


def cut_for_training(shadow: Shadow, batches: Sequence[Any], rules: RaceRules) -> list[Any]:
    """Training batches in pieces of eight rows or more, where cutting leaves the loss alone."""
    each = min(rules.batch_pieces, _fewest_rows(batches) // _FEWEST_ROWS)
    return _cut(shadow, batches, each)


def _fewest_rows(batches: Sequence[Any]) -> int:
    sizes = [t.shape[0] for batch in batches for t in tensors_in(batch) if t.ndim]
    return min(sizes, default=0)


def _cut(shadow: Shadow, batches: Sequence[Any], each: int) -> list[Any]:
    """Batches in that many pieces each, or whole.

    A loss that looks across the rows of a batch (contrastive, graphs) or at something that was
    not cut with them (a list beside the tensors) is another loss on a piece; such batches stay
    whole. Tried on the first batch.
    """
    if each <= 1 or not batches:
        return list(batches)
    first = pieces(batches[0], each)
    agrees = attempt(lambda: _loss_agrees(shadow, batches[0], first))
    if agrees is not True:
        return list(batches)
    return [piece for batch in batches for piece in pieces(batch, each)]


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
    recipe: OptimizerRecipe,
    rules: RaceRules,
) -> RaceReport:
    """Train and measure candidates; each carries its result, a fault included.

    Those that leave at a rung keep the gain they had there. What the candidates' passes have in
    common is run once (`Sharing`); a trial's result is that of running it alone through the whole
    host, up to rounding.

    Args:
        train_batches: pieces of batches of live steps, as `cut_for_training` gives them; trial
            step i takes the i-th, round and round.
        held_out: pieces of held-out batches, as `cut` gives them.
        recipe: what the trials' optimizers were built by.

    Raises:
        Exception: whatever the task's own loss raises on the bare shadow: no trial is possible.
    """
    ledger, report = FlopLedger(), RaceReport()
    before = ledger.run_bare("held out", lambda: _losses(shadow, held_out))
    max_size_bytes = rules.max_shared_size_bytes
    sharing = Sharing(
        shadow, trials, train_batches, held_out, recipe, ledger, report, max_size_bytes
    )
    racing = list(trials)
    for rung, num_steps in enumerate(rules.rung_steps):
        sharing.train(racing, num_steps)
        sharing.measure(racing, before)
        racing = [trial for trial in racing if trial.fault is None]
        if rung < len(rules.rung_steps) - 1:
            racing = _going_on(racing, rules.num_going_on(rung, len(racing)), rules)
    num_steps = max((trial.steps for trial in racing), default=0) if rules.control else 0
    control = partial(control_gain, shadow, train_batches, held_out, before, recipe)
    measured = attempt(lambda: control(num_steps, ledger)) if num_steps else None
    if isinstance(measured, tuple):
        report.host_gain, report.host_gain_error = measured
    report.flops = ledger.total
    return report


def _losses(shadow: Shadow, held_out: Sequence[Any]) -> Tensor:
    with isolated_rng(HELD_OUT_RNG_SEED):
        return shadow.held_out_losses(held_out)


def _going_on(trials: Sequence[Trial], keep: int, rules: RaceRules) -> list[Trial]:
    """The best, without those that the leader has clearly beaten."""
    # Ties keep the order of the catalogue, so the same run always picks the same.
    best = sorted(trials, key=lambda trial: -trial.gain)[:keep]
    return [trial for trial in best if not _is_clearly_beaten(trial, best[0], rules)]


def _is_clearly_beaten(trial: Trial, leader: Trial, rules: RaceRules) -> bool:
    """Whether training on would hardly turn the order of two candidates around.

    Held-out pieces are paired, so a small difference can be many standard errors; what is learnt
    between two rungs is not in them, hence the second condition.
    """
    if trial.losses is None or leader.losses is None:
        return False
    lead, error = paired_gain(trial.losses, leader.losses)
    is_far = trial.gain < rules.clear_share * leader.gain
    return leader.gain > 0.0 and is_far and lead > rules.clear_errors * error
