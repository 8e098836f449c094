"""Other packages that grow networks, each in a process of an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from bench.growth.arms.arm import Finished, Settings
from bench.growth.results import Result
from bench.growth.store import Job
from bench.growth.task import Task

_HERE: Final = Path(__file__).resolve().parents[1]
_PYTHON: Final = _HERE / ".venv-peers" / "bin" / "python"


@dataclass(frozen=True)
class Peer:
    """A package as it is installed from the index, at fixed times, for the epochs Esper has."""

    name: str
    about: str
    package: str
    rates_of: str | None = None
    needs: tuple[str, ...] = ()

    def refusal(self, task: str) -> str | None:
        if task != "fashion":
            return "it is set up for Fashion-MNIST alone"
        if not _PYTHON.exists():
            return f"{_PYTHON} is not there; run 'make growth-peers' first"
        return None

    def settings(self, task: Task, rng_seed: int, finished: Finished) -> Settings | None:
        """Which release."""
        return {"package": self.package, "num_spans": task.num_spans, "short": task.is_short}

    def run(self, task: Task, job: Job) -> Result:
        """Train in the other environment; what it prints is only shown if it fails."""
        done = subprocess.run(  # noqa: S603 -- our own module, in the other environment
            [str(_PYTHON), "-m", "bench.growth.peers"],
            input=msgspec.json.encode(job._asdict()),
            capture_output=True,
            cwd=_HERE.parents[1],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        if done.returncode:
            sys.stderr.buffer.write(done.stderr)
            done.check_returncode()
        return msgspec.json.decode(done.stdout.splitlines()[-1], type=Result)


PEERS: Final = (
    Peer("perforated_ai", "PerforatedAI, 3 dendrites", "perforatedai==3.2.9"),
    Peer("gromo", "GroMo, TINY, 3 growths", "gromo==0.1.0"),
)
