"""The store: one file for each run, there whole or not at all, never read if anything changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from bench.growth.results import Result

RUNS: Final = Path(__file__).with_name("runs")


class Job(NamedTuple):
    """A run to do, told by everything that its result depends on."""

    task: str
    arm: str
    rng_seed: int
    settings: dict[str, Any]
    """Of the task and the arm, as plain values."""

    @property
    def digest(self) -> str:
        """Of the settings, 12 hexadecimal digits."""
        whole = msgspec.json.encode(self.settings, order="sorted")
        return hashlib.sha256(whole).hexdigest()[:12]


class Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file: the settings that a result was got with, the result, and on what machine."""

    settings: dict[str, Any]
    result: Result
    machine: str


class Store:
    """Runs in files under one directory."""

    def __init__(self, directory: Path = RUNS) -> None:
        self._directory = directory

    def path(self, job: Job) -> Path:
        """Where the result of a job is kept."""
        name = f"{job.rng_seed}-{job.digest}.json"
        return self._directory / job.task / job.arm / name

    def get(self, job: Job) -> Result | None:
        """The result of a job; None if it was never finished, or its file is damaged."""
        try:
            run = msgspec.json.decode(self.path(job).read_bytes(), type=Run)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        same = Job(job.task, job.arm, job.rng_seed, run.settings).digest == job.digest
        return run.result if same else None

    def put(self, job: Job, result: Result, machine: str) -> None:
        """Keep a result; a process that is killed meanwhile leaves no file of this name."""
        path = self.path(job)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(msgspec.json.encode(Run(job.settings, result, machine)))
        part.replace(path)

    def prune(self, used: Iterable[Job]) -> int:
        """Delete the other files of the tasks and arms that these runs are of.

        Returns:
            How many there were.
        """
        kept = {self.path(job) for job in used}
        held = {path for wanted in kept for path in wanted.parent.glob("*.json")}
        for path in held - kept:
            path.unlink()
        return len(held - kept)
