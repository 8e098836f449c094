"""Esper as a user gets it, and with one of its parts left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from bench.growth import nets
from bench.growth.arms.arm import Finished, Settings
from bench.growth.arms.static import ESPER
from bench.growth.growing import BeforeBoundary, growing
from bench.growth.results import Result
from bench.growth.store import Job
from bench.growth.task import Task
from bench.growth.training import Course, train
from kasmina.slots.slot import attached_seeds
from leyline import Stage
from tolaria import Orchestrator

ALGORITHM: Final = (
    "50, 100, 200 half batches for all, 16, 4; then the best 8; 2 grafts; 0.3 of FLOPs"
)
"""Raise it by hand whenever Esper decides or trains otherwise: its runs are then done again."""


@dataclass(frozen=True)
class Esper:
    """Grows the host; all the arms of this kind have the same learning rate."""

    name: str = ESPER
    about: str = "Esper"
    overrides: dict[str, Any] = field(default_factory=dict)
    hook: str | None = None
    """Which of HOOKS takes the part out that no setting does."""
    needs: tuple[str, ...] = ()

    @property
    def rates_of(self) -> str | None:
        return None if self.name == ESPER else ESPER

    def refusal(self, task: str) -> str | None:
        return None

    def settings(self, task: Task, rng_seed: int, finished: Finished) -> Settings | None:
        """Esper's settings, and by which algorithm it follows them."""
        return {
            "algorithm": ALGORITHM,
            "num_spans": task.num_spans,
            "hook": self.hook,
            "esper": {**task.esper, **self.overrides},
        }

    def run(self, task: Task, job: Job) -> Result:
        """Grow."""
        return grow(task, job, HOOKS.get(job.settings["hook"]))


def grow(task: Task, job: Job, before_boundary: BeforeBoundary | None = None) -> Result:
    """Train a host with Esper by the settings of a job."""
    chosen = job.settings
    course = Course(chosen["num_spans"], chosen["learning_rate"], job.rng_seed)
    start = growing(task, course, chosen["esper"], before_boundary=before_boundary)
    return train(task, nets.build(task, nets.HOST, job.rng_seed), course, start)


def _at_once(esper: Orchestrator) -> None:
    """Let the next graft be at alpha 1 after one step; no setting goes below an epoch."""
    esper.executor.ramp_steps = 1


def _frozen(esper: Orchestrator) -> None:
    """Train nothing on that has been fossilized."""
    fossils = set(esper.executor.table.in_stage(Stage.FOSSILIZED))
    for name, held in attached_seeds(esper.model).items():
        if name in fossils:
            held.seed.requires_grad_(False)
            held.seed.zero_grad(set_to_none=True)


HOOKS: Final[Mapping[str | None, BeforeBoundary]] = MappingProxyType(
    {"at once": _at_once, "frozen fossils": _frozen}
)

ESPERS: Final = (
    Esper(),
    Esper("random_choice", "Esper without races: random choice", {"policy": "random"}),
    Esper("no_ramp", "Esper without ramp", hook="at once"),
    Esper("no_veto", "Esper without veto", {"veto": False}),
    Esper("frozen_fossils", "Esper, its fossils frozen", hook="frozen fossils"),
)
