"""One run of a peer: a job as JSON on stdin, its result as JSON on the last line of stdout."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from typing import Any

import msgspec
import torch
from torch import nn

from bench.growth import nets
from bench.growth.results import Result
from bench.growth.store import Job
from bench.growth.task import Task
from bench.growth.tasks import load
from bench.growth.training import Course, seeded, train


def main() -> None:
    torch.set_num_threads(1)
    job = Job(**msgspec.json.decode(sys.stdin.buffer.read()))
    task = load(job.task, short=job.settings["short"])
    # One of them talks a lot, and writes where it runs.
    with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stdout(sys.stderr):
        os.chdir(directory)
        result = _run(task, job)
    print(msgspec.json.encode(result).decode())


def _run(task: Task, job: Job) -> Result:
    """Import the peer, and train."""
    course = Course(job.settings["num_spans"], job.settings["learning_rate"], job.rng_seed)
    if job.arm == "gromo":
        from bench.growth.peers import gromo_tiny

        model: nn.Module = seeded(lambda: gromo_tiny.FashionNet(8), job.rng_seed)
        return train(task, model, course, lambda *parts: gromo_tiny.start(task, *parts))
    from bench.growth.peers import perforated_ai

    perforated: list[perforated_ai.Perforated] = []

    def start(*parts: Any) -> perforated_ai.Perforated:
        """Keep hold of it, to count its parameters."""
        perforated.append(perforated_ai.start(task, *parts))
        return perforated[-1]

    result = train(task, nets.build(task, nets.HOST, job.rng_seed), course, start)
    size = result.num_parameters - perforated[-1].unused_parameters
    return msgspec.structs.replace(result, num_parameters=size)


if __name__ == "__main__":
    main()
