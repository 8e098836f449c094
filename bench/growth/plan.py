"""The plan: which runs there are, which are done, which can be done now and which must wait."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from bench.growth import realised
from bench.growth.arms import ARMS
from bench.growth.arms.arm import Arm
from bench.growth.results import Result
from bench.growth.store import Job, Store
from bench.growth.task import TUNING_RNG_SEED, Task


class Survey(NamedTuple):
    """What there is to do."""

    done: list[tuple[Job, Result]]
    ready: list[Job]
    num_waiting: int
    """Runs whose settings are not known before others are done."""


class Plan:
    """Runs of some arms on some tasks, RNG seed by RNG seed."""

    def __init__(
        self, tasks: Iterable[Task], arms: Iterable[str], num_rng_seeds: int | None, store: Store
    ):
        self.tasks = list(tasks)
        wanted = list(arms)
        for name in wanted:  # it grows meanwhile
            needs = (*ARMS[name].needs, ARMS[name].rates_of) if name in ARMS else ()
            wanted += [other for other in needs if other and other not in wanted]
        self.arms = [arm for name, arm in ARMS.items() if name in wanted]
        self._has_realised = realised.NAME in wanted
        self._num_rng_seeds = num_rng_seeds
        self._store = store
        self._results: dict[tuple[str, str, int, str], Result] = {}
        self._settings: dict[tuple[str, str, int], dict[str, Any]] = {}

    def rng_seeds(self, task: Task) -> range:
        """Those that results are reported of."""
        return range(self._num_rng_seeds or task.num_rng_seeds)

    def survey(self) -> Survey:
        """Look at every run, in the order in which they are best done: by RNG seed."""
        survey = Survey([], [], 0)
        num_waiting = 0
        for job in self._jobs():
            if job is None:
                num_waiting += 1
            elif (result := self.get(job)) is not None:
                survey.done.append((job, result))
            else:
                survey.ready.append(job)
        return survey._replace(num_waiting=num_waiting)

    def finished(self, task: Task, arm: str, rng_seed: int) -> Result | None:
        """The result of an arm at its own learning rate; None while it is missing."""
        rate = self.rate(task, ARMS[arm])
        job = None if rate is None else self.job(task, ARMS[arm], rng_seed, rate)
        return None if job is None else self.get(job)

    def realised(self, task: Task) -> list[tuple[Job, Result]]:
        """The control and every candidate that is done, the control first; empty without it."""
        jobs = realised.jobs(task) if self._has_realised else []
        found = [(job, self.get(job)) for job in jobs]
        done = [(job, result) for job, result in found if result is not None]
        return done if done and done[0][0] == jobs[0] else []

    def rate(self, task: Task, arm: Arm) -> float | None:
        """The learning rate with the best metric on validation; None before all were tried."""
        if arm.rates_of is not None:
            return self.rate(task, ARMS[arm.rates_of])
        found = {rate: self._tuned(task, arm, rate) for rate in task.learning_rates}
        known = {rate: result for rate, result in found.items() if result is not None}
        if len(known) < len(found):
            return None
        return max(known, key=lambda rate: task.gain(known[rate].val_metric, 0.0))

    def job(self, task: Task, arm: Arm, rng_seed: int, rate: float) -> Job | None:
        """A run; None while its settings rest on one that is not done."""
        key = task.name, arm.name, rng_seed
        if key not in self._settings:
            chosen = arm.settings(
                task, rng_seed, lambda name, seed: self.finished(task, name, seed)
            )
            if chosen is None:
                return None
            self._settings[key] = {"task": task.settings(), **chosen}
        return Job(task.name, arm.name, rng_seed, {**self._settings[key], "learning_rate": rate})

    def get(self, job: Job) -> Result | None:
        """The result of a run, if it is done."""
        key = (job.task, job.arm, job.rng_seed, job.digest)
        if key not in self._results and (result := self._store.get(job)) is not None:
            self._results[key] = result
        return self._results.get(key)

    def _tuned(self, task: Task, arm: Arm, rate: float) -> Result | None:
        job = self.job(task, arm, TUNING_RNG_SEED, rate)
        return None if job is None else self.get(job)

    def _jobs(self) -> Iterator[Job | None]:
        for task in self.tasks:
            arms = [arm for arm in self.arms if arm.refusal(task.name) is None]
            for arm in arms:
                if arm.rates_of is None:
                    rates = task.learning_rates
                    yield from (self.job(task, arm, TUNING_RNG_SEED, rate) for rate in rates)
            for rng_seed in self.rng_seeds(task):
                for arm in arms:
                    rate = self.rate(task, arm)
                    yield None if rate is None else self.job(task, arm, rng_seed, rate)
            if self._has_realised:
                yield from realised.jobs(task)
