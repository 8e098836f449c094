"""Static networks told by plain values, so that a run's settings say all that was trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from bench.growth.catalogue import planted
from bench.growth.task import Planting, Task, num_parameters
from bench.growth.training import seeded

Net = Mapping[str, Any]

HOST: Net = {"kind": "host"}


def hand_picked(task: Task) -> Net:
    """What somebody who knows the task would train."""
    return {"kind": "hand_picked", "modules": task.digest_of(task.hand_picked(0))}


def widened(task: Task, parameters: int) -> Net:
    """The host of the width whose number of parameters comes closest."""
    width = 1
    while num_parameters(task.widened(width)) < parameters:
        width += 1
    closest = min(
        (width, max(1, width - 1)),
        key=lambda w: abs(num_parameters(task.widened(w)) - parameters),
    )
    return {"kind": "widened", "width": closest}


def of_plan(plan: list[Planting] | list[tuple[str, str]]) -> Net:
    """The host with blueprints of the catalogue from the start."""
    return {"kind": "planted", "plan": [list(planting) for planting in plan]}


def build(task: Task, net: Net, rng_seed: int) -> nn.Module:
    """Make a network; the same RNG seed gives the same host in every one of them."""
    match net:
        case {"kind": "host"}:
            return seeded(task.host, rng_seed)
        case {"kind": "hand_picked"}:
            return seeded(lambda: task.hand_picked(rng_seed), rng_seed)
        case {"kind": "widened", "width": width}:
            return seeded(lambda: task.widened(width), rng_seed)
        case {"kind": "planted", "plan": plan}:
            plantings = [Planting(*planting) for planting in plan]
            return seeded(lambda: planted(task, plantings, rng_seed), rng_seed)
    raise ValueError(f"no network is told by {net}")
