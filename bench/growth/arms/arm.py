"""What an arm is: settings that follow from a task, and a way to train by them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from bench.growth.results import Result
from bench.growth.store import Job
from bench.growth.task import Task

Settings = dict[str, Any]
Finished = Callable[[str, int], Result | None]
"""The result of another arm on the same task for an RNG seed, at that arm's own learning rate."""


class Arm(Protocol):
    """One way to spend a budget on a task."""

    name: str
    about: str
    """In a few words, for the table."""
    rates_of: str | None
    """The arm whose learning rate it takes; None: it has its own, chosen on validation."""
    needs: tuple[str, ...]
    """Arms whose result for the same RNG seed its settings rest on."""

    def settings(self, task: Task, rng_seed: int, finished: Finished) -> Settings | None:
        """What a run depends on beside the task and the learning rate; None while it must wait."""
        ...

    def run(self, task: Task, job: Job) -> Result:
        """Do a run by its settings."""
        ...

    def refusal(self, task: str) -> str | None:
        """Why it cannot run on a task here, and what to do; None if it can."""
        ...
