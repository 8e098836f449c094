"""Static networks from Kasmina's catalogue: a host that carries blueprints from the start."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

import torch
from torch import nn

from bench.growth.task import Planting, Task, num_parameters
from kasmina import derive_rng_seed, export
from kasmina.blueprints import catalogue
from kasmina.slots.birth import build_seed
from kasmina.slots.slot import attach_seed

_LEAST_BUDGET: Final = 16_384
_MAX_PLANTINGS: Final = 4


@cache
def parameters(task: Task) -> dict[Planting, int]:
    """Every blueprint at every site of the host where it fits, and what it would add."""
    return {
        Planting(site.name, name): site.cost(name).num_parameters
        for site in task.sites
        for name in catalogue.by_name
        if catalogue[name].built_in and site.accepts(name)
    }


def planted(task: Task, plan: Sequence[Planting], rng_seed: int) -> nn.Module:
    """The host with these blueprints, in this order: plain torch, no part of Esper in it.

    A blueprint adds nothing at birth, as when it is grown: the first loss is that of the host.
    """
    model = task.host()
    sites = {site.name: site for site in task.sites}
    for number, (site, blueprint) in enumerate(plan):
        seed = build_seed(
            model,
            site,
            seed=f"{site}/{number}",
            blueprint=blueprint,
            shape=sites[site].seed_shape,
            chunk=(0, 1),
            rng_seed=derive_rng_seed(rng_seed, "planted", site, blueprint, number),
        )
        attach_seed(site, model.get_submodule(site), seed)
        seed.blend(1.0)
    return export(model).requires_grad_(True)


def parameter_budget(task: Task) -> int:
    """How many parameters Esper may add, for whoever draws at random instead."""
    default = max(_LEAST_BUDGET, num_parameters(task.host()))
    return int(task.esper.get("param_budget", default))


def draw(
    task: Task, generator: torch.Generator, num_plantings: int | None = None
) -> list[Planting]:
    """Draw blueprints and sites evenly, within the parameters that growth may add.

    Args:
        num_plantings: how many; drawn too, from 1 to 4, if None.
    """
    if num_plantings is None:
        num_plantings = 1 + int(torch.randint(_MAX_PLANTINGS, (), generator=generator))
    sizes = parameters(task)
    left, plan = parameter_budget(task), list[Planting]()
    for _ in range(num_plantings):
        fitting = [planting for planting, size in sizes.items() if size <= left]
        if not fitting:
            break
        plan.append(fitting[int(torch.randint(len(fitting), (), generator=generator))])
        left -= sizes[plan[-1]]
    return plan
