"""Whether blending a graft in, or taking one out, harms by itself: no step of training between."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Final

from torch import nn

from bench.growth.task import Task
from kasmina.slots.slot import attached_seeds
from leyline import LIFECYCLE, SeedReport, Stage

_ALPHAS: Final = (0.25, 0.5, 0.75, 1.0)


def losses_of_change(task: Task, model: nn.Module, reports: Sequence[SeedReport]) -> list[float]:
    """Validation losses right after a boundary, if it put something into the network or took it
    out: as it is, and of a copy in which what was put in is blended in by quarters."""
    moved = [
        report
        for report in reports
        if LIFECYCLE[Stage(report.was)].in_forward != LIFECYCLE[Stage(report.now)].in_forward
    ]
    if not moved:
        return []
    losses = [task.score(model, task.splits.val).loss]
    born = [report.seed for report in moved if report.now == Stage.GRAFTING]
    if born:
        model = copy.deepcopy(model)
        held = attached_seeds(model)
        for alpha in _ALPHAS:
            for seed in born:
                held[seed].seed.blend(alpha)
            losses.append(task.score(model, task.splits.val).loss)
    return losses
