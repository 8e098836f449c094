"""Esper with a one-shot gradient score in place of its races, as other growers choose."""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import msgspec
import torch
from torch import Tensor, nn

from bench.growth.arms.arm import Finished, Settings
from bench.growth.arms.esper import ALGORITHM, grow
from bench.growth.arms.static import ESPER
from bench.growth.catalogue import parameter_budget, parameters
from bench.growth.results import Result
from bench.growth.store import Job
from bench.growth.task import Planting, Task
from bench.growth.training import batches
from kasmina import count_flops, derive_rng_seed
from kasmina.slots.birth import build_seed
from kasmina.slots.slot import attach_seed
from tolaria import Orchestrator

_NUM_BATCHES: Final = 8


@dataclass(frozen=True)
class Gradient:
    """At the times of the paired grown run, what has the largest gradient at zero output."""

    name: str = "gradient"
    about: str = "one-shot gradient score instead of races"
    rates_of: str | None = ESPER
    needs: tuple[str, ...] = (ESPER,)

    def refusal(self, task: str) -> str | None:
        return None

    def settings(self, task: Task, rng_seed: int, finished: Finished) -> Settings | None:
        """When something is planted; what and where is found in the run."""
        grown = finished(ESPER, rng_seed)
        if grown is None or grown.growing is None:
            return None
        return {
            "algorithm": ALGORITHM,
            "num_spans": task.num_spans,
            "spans": sorted({graft.span for graft in grown.growing.grafts}),
            "esper": dict(task.esper),
        }

    def run(self, task: Task, job: Job) -> Result:
        """Find one planting after the other, each in a run that ends there; then do the whole.

        The runs up to a planting are the same as the last one, bit for bit, so they are not
        counted; the scores are.
        """
        schedule: list[tuple[int, str, str]] = []
        flops = 0
        for span in job.settings["spans"]:
            scorer = _Scorer(task, job.rng_seed, span, schedule)
            with suppress(_EnoughError):
                grow(task, _scheduled(job, schedule), scorer)
            if scorer.best is not None:
                schedule.append((span, *scorer.best))
            flops += scorer.flops
        result = grow(task, _scheduled(job, schedule))
        return msgspec.structs.replace(result, search_flops=result.search_flops + flops)


def _scheduled(job: Job, schedule: list[tuple[int, str, str]]) -> Job:
    growth: dict[str, Any] = {"policy": "hold"}
    if schedule:
        growth = {"policy": "schedule", "schedule": [list(entry) for entry in schedule]}
    return job._replace(settings={**job.settings, "esper": {**job.settings["esper"], **growth}})


class _EnoughError(Exception):
    """Ends a run whose rest nobody wants."""


class _Scorer:
    """Scores every candidate that fits the budget at the end of one span, and ends the run."""

    def __init__(
        self, task: Task, rng_seed: int, span: int, schedule: list[tuple[int, str, str]]
    ) -> None:
        self._task = task
        self._span = span
        sizes = parameters(task)
        left = parameter_budget(task) - sum(sizes[Planting(*entry[1:])] for entry in schedule)
        self._fitting = [planting for planting, size in sizes.items() if size <= left]
        self._rng_seed = rng_seed
        self.best: Planting | None = None
        self.flops = 0

    def __call__(self, esper: Orchestrator) -> None:
        if esper.epoch + 1 < self._span:
            return
        scores = {planting: self._score(esper.model, planting) for planting in self._fitting}
        self.best = max(scores, key=lambda planting: scores[planting], default=None)
        raise _EnoughError

    def _score(self, host: nn.Module, planting: Planting) -> float:
        """The squared norm of the mean gradient of its parameters."""
        model = copy.deepcopy(host).train()
        shapes = {site.name: site.seed_shape for site in self._task.sites}
        seed = build_seed(
            model,
            planting.site,
            seed=f"{planting.site}/scored",
            blueprint=planting.blueprint,
            shape=shapes[planting.site],
            chunk=(0, 1),
            rng_seed=derive_rng_seed(self._rng_seed, "scored", *planting),
        )
        attach_seed(planting.site, model.get_submodule(planting.site), seed)
        seed.blend(1.0)
        model.zero_grad()
        self.flops += count_flops(lambda: self._mean_loss(model).backward())
        grads = [p.grad for p in seed.parameters() if p.grad is not None]
        return float(sum((grad**2).sum() for grad in grads))

    def _mean_loss(self, model: nn.Module) -> Tensor:
        drawn = islice(batches(self._task, self._rng_seed), _NUM_BATCHES)
        return torch.stack([self._task.loss(model, batch) for batch in drawn]).mean()
