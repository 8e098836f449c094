"""Grounds: which signals speak for which level, and why, in words."""

from __future__ import annotations

from typing import NamedTuple

from leyline import RiskLevel
from tamiyo.risk.rules import RiskRules
from tamiyo.risk.signals import Chance, Signals

YELLOW, ORANGE, RED, CRITICAL = list(RiskLevel)[1:]


class Ground(NamedTuple):
    """One reason for a level."""

    level: RiskLevel
    why: str
    slows: bool = True
    """Whether it slows alpha, as its level does: no clock or disk may, or a run would grow another
    network on a busy machine."""


def grounds_of_run(
    signals: Signals, rules: RiskRules, *, num_lately: int, norm_times: float, variance_times: float
) -> list[Ground]:
    """What the run's own numbers say: a resumed run comes to the same by itself.

    Args:
        num_lately: rollbacks within the window, those since the last boundary among them.
        norm_times: the gradient norm as a multiple of its running median; 0 if not known.
        variance_times: its variance, alike.
    """
    found = []
    if signals.num_non_finite:
        found.append(Ground(RED, f"values that are not finite: {signals.num_non_finite}"))
    found += _grounds_of_rollbacks(signals.num_rollbacks, num_lately, rules)
    if signals.num_spikes:
        found.append(Ground(YELLOW, f"spikes: {signals.num_spikes}"))
    if signals.num_outliers >= rules.outliers_yellow:
        found.append(Ground(YELLOW, f"values far above the usual: {signals.num_outliers}"))
    for what, times, yellow, orange in (
        ("the gradient norm", norm_times, rules.gradient_yellow, rules.gradient_orange),
        ("its variance", variance_times, rules.variance_yellow, rules.variance_orange),
    ):
        if times >= yellow:
            level = ORANGE if signals.has_unsettled and times >= orange else YELLOW
            found.append(Ground(level, f"{what} is {times:.3g} times its usual value"))
    if signals.num_breakers_open:
        many = signals.num_breakers_open >= rules.breakers_orange
        found.append(
            Ground(ORANGE if many else YELLOW, f"breakers open: {signals.num_breakers_open}")
        )
    return found


def grounds_of_chance(chance: Chance, rules: RiskRules) -> list[Ground]:
    """What time, memory and disks say, or what they said before the run was resumed."""
    if chance.replayed is not None:
        why = "time, memory or a disk, before the resume"
        level = chance.replayed
        return [Ground(level, why, slows=level > YELLOW)] if level else []
    found = []
    overruns, short = chance.overruns_in_a_row, chance.num_short_since_rollback
    if overruns >= rules.overruns_yellow:
        found.append(Ground(YELLOW, f"boundaries in a row over their time: {overruns}", False))
    if short >= rules.memory_boundaries_critical:
        why = (
            f"memory was above memory_limit_bytes at {short} boundaries in a row from a rollback "
            "for it: make batches smaller, or raise that limit"
        )
        found.append(Ground(CRITICAL, why))
    if chance.memory_share >= rules.memory_yellow:
        level = ORANGE if chance.memory_share > 1.0 else YELLOW
        why = f"memory: {chance.memory_share:.0%} of its limit in use"
        found.append(Ground(level, why, slows=level > YELLOW))
    if chance.saves_held:
        found.append(Ground(YELLOW, "checkpoints cannot be written for now", False))
    return found


def _grounds_of_rollbacks(num_now: int, num_lately: int, rules: RiskRules) -> list[Ground]:
    found = []
    within = f"{num_lately} within {rules.window_boundaries} boundaries"
    most = rules.rollbacks_critical
    if num_now and most is not None and num_lately >= most:
        why = f"rollbacks: {within}, and max_rollbacks is {most}: lower the learning rate"
        found.append(Ground(CRITICAL, why))
    if num_now:
        found.append(Ground(RED, f"rollbacks: {num_now}"))
    elif num_lately >= rules.rollbacks_orange:
        found.append(Ground(ORANGE, f"rollbacks: {within}"))
    return found
