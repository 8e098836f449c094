"""What a graft really brings, against what its trial promised: many grafts from one state.

Every candidate has a run of its own that is the same, bit for bit, until it is planted, as is that
of the control in which nothing is. So all are forks of one state, made by Esper itself.
"""

from __future__ import annotations

from typing import Any, Final

from bench.growth.arms.esper import grow
from bench.growth.catalogue import parameters
from bench.growth.results import Result
from bench.growth.store import Job
from bench.growth.task import Planting, Task

NAME: Final = "realised"
_RNG_SEED: Final = 0
_MAX_CANDIDATES: Final = 32
_TRIAL_STEPS: Final = 200
_ALGORITHM: Final = "half batches"
"""Raise it by hand when a scheduled graft is tried or trained otherwise; how Esper chooses among
candidates does not matter here."""
_FORK_SHARE: Final = 0.1
"""Of a run, before anything is planted: when Esper calls its first race."""
_FURTHER_SHARE: Final = 0.3
"""Of a run, trained after the graft."""


def jobs(task: Task) -> list[Job]:
    """The control, then one for each candidate."""
    every = list(parameters(task))
    num = min(_MAX_CANDIDATES, len(every))
    chosen = [every[i * len(every) // num] for i in range(num)]
    return [_job(task, planting) for planting in (None, *chosen)]


def _job(task: Task, planting: Planting | None) -> Job:
    fork = max(2, round(_FORK_SHARE * task.num_spans))
    num_spans = fork + 1 + max(3, round(_FURTHER_SHARE * task.num_spans))
    esper: dict[str, Any] = {"policy": "hold"}
    if planting is not None:
        schedule = [[fork, *planting]]
        esper = {"policy": "schedule", "schedule": schedule, "veto": False}
        esper["trial_steps"] = [_TRIAL_STEPS]
        esper["param_budget"] = parameters(task)[planting]  # whatever the task's budget
    settings = {
        "task": task.settings(),
        "algorithm": _ALGORITHM,
        "num_spans": num_spans,
        "learning_rate": task.learning_rates[len(task.learning_rates) // 2],
        "esper": {**task.esper, **esper},
    }
    return Job(task.name, NAME, _RNG_SEED, settings)


def run(task: Task, job: Job) -> Result:
    """Train the control, or the run of one candidate."""
    return grow(task, job)
