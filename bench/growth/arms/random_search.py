"""What a user would do instead: train networks drawn at random, and keep the best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec
import torch

from bench.growth import nets
from bench.growth.arms.arm import Finished, Settings
from bench.growth.arms.static import ESPER
from bench.growth.catalogue import draw
from bench.growth.results import Result
from bench.growth.store import Job
from bench.growth.task import Task
from bench.growth.training import Course, train
from kasmina import derive_rng_seed

_MAX_DRAWS: Final = 50
"""Networks that are drawn, most of them perhaps too dear for what is left of the budget."""


@dataclass(frozen=True)
class RandomSearch:
    """Static networks of the same catalogue, as many as the FLOPs of the paired grown run buy."""

    name: str = "random_search"
    about: str = "best of a random search, equal FLOPs"
    rates_of: str | None = None
    needs: tuple[str, ...] = (ESPER,)

    def refusal(self, task: str) -> str | None:
        return None

    def settings(self, task: Task, rng_seed: int, finished: Finished) -> Settings | None:
        """The networks, all told beforehand: which can be paid for is known from their FLOPs."""
        grown = finished(ESPER, rng_seed)
        if grown is None:
            return None
        generator = torch.Generator().manual_seed(derive_rng_seed(rng_seed, "random search"))
        least = self._flops(task, nets.HOST)
        left, plans = grown.flops, []
        for _ in range(_MAX_DRAWS):
            if left < least:
                break
            plan = draw(task, generator)
            flops = self._flops(task, nets.of_plan(plan))
            if flops <= left:
                left -= flops
                plans.append([list(planting) for planting in plan])
        return {"plans": plans, "num_spans": task.num_spans}

    @staticmethod
    def _flops(task: Task, net: nets.Net) -> int:
        """Of training it."""
        return task.num_spans * task.steps_per_span * task.step_flops(nets.build(task, net, 0))

    def run(self, task: Task, job: Job) -> Result:
        """Train them one after the other; what is not chosen counts as search."""
        chosen = job.settings
        course = Course(chosen["num_spans"], chosen["learning_rate"], job.rng_seed)
        tried = []
        for plan in chosen["plans"]:
            model = nets.build(task, nets.of_plan(plan), job.rng_seed)
            tried.append(train(task, model, course))
        best = max(tried, key=lambda result: task.gain(result.val_metric, 0.0))
        wasted = sum(result.flops for result in tried) - best.flops
        return msgspec.structs.replace(
            best,
            search_flops=wasted,
            cpu_s=sum(result.cpu_s for result in tried),
            wall_s=sum(result.wall_s for result in tried),
            notes={"num_networks": len(tried), "val": [result.val_metric for result in tried]},
        )
