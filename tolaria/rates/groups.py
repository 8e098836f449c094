"""Parameter groups of seeds: made, removed, and found again, in the optimizers of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from torch import Tensor, nn
from torch.optim import Optimizer

from kasmina import LiveSeed
from tolaria.rates.optimizers import flaw

SEED_KEY: Final = "esper_seed"
"""Key in a parameter group that holds its seed's name."""
HOST_KEY: Final = "esper_host_group"
"""Key in a seed's group that holds the index of the host group it follows."""
_OWN: Final = ("params", "param_names", "lr")
"""Options that a seed's group does not take over from its host group once it is born."""

Group = dict[str, Any]


def add_group(optimizer: Optimizer, host_index: int, name: str, seed: LiveSeed) -> None:
    """Give a seed a group at the end, with the options of its host group."""
    host = optimizer.param_groups[host_index]
    options = {k: v for k, v in host.items() if k not in ("params", "param_names")}
    # A rate that is a tensor is written in place, so it must not be the host's own.
    options = {k: v.clone() if isinstance(v, Tensor) else v for k, v in options.items()}
    parameters: list[Any] = list(seed.parameters)
    if "param_names" in host:
        parameters = [(f"{name}.{i}", p) for i, p in enumerate(parameters)]
    optimizer.add_param_group(
        {**options, "params": parameters, SEED_KEY: name, HOST_KEY: host_index}
    )


def remove_group(optimizer: Optimizer, seed: str) -> int:
    """Take a seed's group away, with the state of its parameters; returns the index it had."""
    names = [group.get(SEED_KEY) for group in optimizer.param_groups]
    index = names.index(seed)
    for parameter in optimizer.param_groups.pop(index)["params"]:
        optimizer.state.pop(parameter, None)
    for other in optimizer.param_groups:
        if other.get(HOST_KEY, -1) > index:
            other[HOST_KEY] -= 1
    return index


def follow_options(optimizer: Optimizer) -> None:
    """Take over what the user has changed in a host group since: weight decay, momentum, ..."""
    for group in optimizer.param_groups:
        if SEED_KEY in group:
            host = optimizer.param_groups[group[HOST_KEY]]
            for key, value in host.items():
                if key not in _OWN and not isinstance(value, Tensor):
                    group[key] = value


def owner_of(site: str, model: nn.Module, optimizers: Sequence[Optimizer]) -> tuple[Optimizer, int]:
    """The optimizer and group index that hold the site's own parameters, else the first."""
    own = {id(p) for p in model.get_submodule(site).parameters()}
    able = [optimizer for optimizer in optimizers if not flaw(optimizer)]
    for optimizer in able:
        for index, group in enumerate(optimizer.param_groups):
            if SEED_KEY not in group and any(id(p) in own for p in group["params"]):
                return optimizer, index
    return able[0], 0


def seeds_of(optimizer: Optimizer) -> list[str]:
    """The seeds of an optimizer's groups, in order."""
    return [group[SEED_KEY] for group in optimizer.param_groups if SEED_KEY in group]


def take_out(optimizer: Optimizer, seeds: Mapping[str, LiveSeed]) -> None:
    """Take the seeds' parameters out of every group; their optimizer state stays."""
    ours = {id(p) for seed in seeds.values() for p in seed.parameters}
    for group in optimizer.param_groups:
        keep = [i for i, p in enumerate(group["params"]) if id(p) not in ours]
        group["params"] = [group["params"][i] for i in keep]
        if "param_names" in group:
            group["param_names"] = [group["param_names"][i] for i in keep]
