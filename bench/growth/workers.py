"""Worker processes: each does one run after another on one thread, and ends with its parent."""

from __future__ import annotations

import multiprocessing
import os
import platform
import signal
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import NamedTuple

import torch

from bench.growth import realised
from bench.growth.arms import ARMS
from bench.growth.store import Job, Store
from bench.growth.tasks import load


def machine() -> str:
    """What results were got on, without its name."""
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__}, one thread"
    )


def do(job: Job, store: Store, *, short: bool) -> float:
    """Do a run and keep its result; returns the wall seconds that it took."""
    task = load(job.task, short=short)
    run = realised.run if job.arm == realised.NAME else ARMS[job.arm].run
    result = run(task, job)
    store.put(job, result, machine())
    return result.wall_s


class Worker(NamedTuple):
    """A process that waits for jobs at the other end of a pipe."""

    process: SpawnProcess
    pipe: Connection

    @classmethod
    def start(cls, store: Store, *, short: bool) -> Worker:
        """Start one; it ends when this end of its pipe is closed, by a kill too."""
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=_work, args=(there, store, short))
        process.start()
        there.close()
        return cls(process, here)


def _work(pipe: Connection, store: Store, short: bool) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    torch.set_num_threads(1)
    while True:
        try:
            job = pipe.recv()
        except (EOFError, ConnectionResetError):
            return  # the parent is gone
        pipe.send(do(job, store, short=short))


class Workers:
    """Several of them; one that dies in a run is replaced, and the run counts as failed."""

    def __init__(self, num: int, store: Store, *, short: bool) -> None:
        self._store = store
        self._short = short
        self._idle = [Worker.start(store, short=short) for _ in range(num)]
        self._busy: dict[Connection, tuple[Worker, Job]] = {}

    @property
    def has_idle(self) -> bool:
        """Whether one waits for a job."""
        return bool(self._idle)

    @property
    def busy_with(self) -> list[Job]:
        """The runs under way."""
        return [job for _, job in self._busy.values()]

    def begin(self, job: Job) -> None:
        """Hand a job to one that is idle."""
        worker = self._idle.pop()
        worker.pipe.send(job)
        self._busy[worker.pipe] = worker, job

    def next_done(self) -> tuple[Job, float | None]:
        """Wait for a run to end: its wall seconds, or None if it failed."""
        pipe = next(pipe for pipe in wait(list(self._busy)) if isinstance(pipe, Connection))
        worker, job = self._busy.pop(pipe)
        try:
            took_s = pipe.recv()
        except (EOFError, ConnectionResetError):
            worker.process.join()
            worker = Worker.start(self._store, short=self._short)
            took_s = None
        self._idle.append(worker)
        return job, took_s

    def stop(self) -> None:
        """End all of them; runs under way are lost."""
        for worker in (*self._idle, *(worker for worker, _ in self._busy.values())):
            worker.process.terminate()
            worker.process.join()
