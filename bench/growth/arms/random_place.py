"""Growth at the times that Esper chose, of what is drawn at random where it is drawn at random."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bench.growth.arms.arm import Finished, Settings
from bench.growth.arms.esper import ALGORITHM, grow
from bench.growth.arms.static import ESPER
from bench.growth.catalogue import draw
from bench.growth.results import Result
from bench.growth.store import Job
from bench.growth.task import Task
from kasmina import derive_rng_seed


@dataclass(frozen=True)
class RandomPlace:
    """A drawn blueprint at a drawn site whenever the paired grown run planted a winner.

    It trains in its trial as a winner does, but its gain does not gate; the veto may cull it.
    """

    name: str = "random_place"
    about: str = "random blueprint and place, at the same times"
    rates_of: str | None = ESPER
    needs: tuple[str, ...] = (ESPER,)

    def refusal(self, task: str) -> str | None:
        return None

    def settings(self, task: Task, rng_seed: int, finished: Finished) -> Settings | None:
        """A schedule."""
        grown = finished(ESPER, rng_seed)
        if grown is None or grown.growing is None:
            return None
        generator = torch.Generator().manual_seed(derive_rng_seed(rng_seed, "random place"))
        spans = [graft.span for graft in grown.growing.grafts]
        plan = draw(task, generator, num_plantings=len(spans))
        schedule = [[span, *planting] for span, planting in zip(spans, plan, strict=False)]
        settings = {"policy": "schedule", "schedule": schedule}
        return {
            "algorithm": ALGORITHM,
            "num_spans": task.num_spans,
            "esper": {**task.esper, **(settings if schedule else {"policy": "hold"})},
        }

    def run(self, task: Task, job: Job) -> Result:
        """Grow by the schedule."""
        return grow(task, job)
