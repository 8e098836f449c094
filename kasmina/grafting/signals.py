"""Signals: what a grafting strategy may know about the training step that has just been made."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Signals:
    """Measurements of one step; None is "not known". On a GPU they may be one step late."""

    loss: float | None = None
    """The training loss, in its own unit."""
    weight_drift: float | None = None
    """How far the step moved the weights of the host's module at the site, relative to their norm:
    |w - w_before| / |w_before|, over an even sample of them."""
    gradient_norm: float | None = None
    """Euclidean norm of the gradient of that module's weights, as the optimizer saw it."""

    def fault(self) -> str:
        """Which of them is not finite, in words; empty if all are."""
        for name, value in vars(self).items():
            if value is not None and not math.isfinite(value):
                return f"the {name.replace('_', ' ')} is {value:g}"
        return ""


NOTHING_KNOWN = Signals()
"""The signals for strategies that ask for none."""
