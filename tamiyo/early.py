"""What may call the first race before the warm-up is over: a plateau, or a host that underfits.

Both are off unless asked for. A race long before the host has settled measures every candidate
against a host that has barely learnt, and whether that helps has not been measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tamiyo.state import State
from tamiyo.timing import Amount, Count


@dataclass(frozen=True, kw_only=True)
class EarlyRules:
    """What may call the first race early. Epochs are boundaries with `boundary_every_steps`."""

    monitor: str = "val_loss"
    """The metric that is watched."""
    monitor_mode: Literal["min", "max", "auto"] = "auto"
    """"min" if less of it is better, "max" if more is; "auto" if nobody can tell."""
    plateau_epochs: Count = 0
    """Epochs over which the monitored metric must improve; 0: a plateau calls nothing."""
    plateau_improvement: Amount = 0.01
    """Improvement over those, as a share of the metric, below which it is a plateau."""
    train_monitor: str = "train_loss"
    """The training metric that is set beside the monitored one."""
    underfit_gap: Amount = 0.0
    """Share of the training metric by which the monitored one may be worse at most for the host to
    count as one that underfits; 0: the gap calls nothing."""


class Trend:
    """The monitored metric of the last epochs; kept until the first race."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def note(self, state: State, rules: EarlyRules) -> None:
        """Take this boundary's value; one that was not measured anew is no value."""
        value = state.metrics.get(rules.monitor, math.nan)
        if rules.plateau_epochs and math.isfinite(value) and [value] != self.values[-1:]:
            self.values = [*self.values, value][-rules.plateau_epochs - 1 :]


def why_early(state: State, trend: Sequence[float], rules: EarlyRules) -> str:
    """Why the first race should not wait for the warm-up, in a line; empty if it should."""
    sign = {"min": 1.0, "max": -1.0}.get(rules.monitor_mode, 0.0)
    if not sign:
        return ""
    if rules.plateau_epochs and len(trend) > rules.plateau_epochs:
        improvement = sign * (trend[0] - trend[-1]) / (abs(trend[0]) or 1.0)
        if improvement < rules.plateau_improvement:
            return (
                f"{rules.monitor} improved by {improvement:.2%} in {rules.plateau_epochs} epochs, "
                f"less than {rules.plateau_improvement:.2%}"
            )
    held_out = state.metrics.get(rules.monitor, math.nan)
    trained = state.metrics.get(rules.train_monitor, math.nan)
    if rules.underfit_gap and math.isfinite(held_out) and math.isfinite(trained):
        gap = sign * (held_out - trained) / (abs(trained) or 1.0)
        if gap < rules.underfit_gap:
            return (
                f"{rules.monitor} is {gap:.2%} worse than {rules.train_monitor}, less than "
                f"{rules.underfit_gap:.2%}: the host underfits"
            )
    return ""
