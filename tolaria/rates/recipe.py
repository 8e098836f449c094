"""The optimizer of trials, and the state that a seed brings from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch.optim import Optimizer

from kasmina import LiveSeed, OptimizerRecipe
from tolaria.rates.groups import Group

_ADAMS: Final = (torch.optim.Adam, torch.optim.AdamW)
_DEFAULT_TRIAL_LEARNING_RATE: Final = 3e-3


def trial_recipe(optimizer: Optimizer, learning_rate: float | None) -> OptimizerRecipe:
    """The optimizer of trials: the host's own kind if it is an Adam, else AdamW."""
    host = optimizer.param_groups[0]
    if type(optimizer) not in _ADAMS:
        return OptimizerRecipe(
            torch.optim.AdamW, {"lr": learning_rate or _DEFAULT_TRIAL_LEARNING_RATE}
        )
    options = {name: host[name] for name in ("betas", "eps", "weight_decay", "amsgrad")}
    return OptimizerRecipe(type(optimizer), {"lr": float(learning_rate or host["lr"]), **options})


def takes_moments(optimizer: Optimizer, group: Group, first: Optimizer) -> bool:
    """Whether a group can go on with the moments of trials, whose optimizer is like the first.

    Only an Adam's are worth carrying; fused and capturable ones count their steps elsewhere.
    """
    if type(optimizer) not in _ADAMS or type(optimizer) is not type(first):
        return False
    plain = not group.get("fused") and not group.get("capturable")
    return plain and group["amsgrad"] == first.param_groups[0]["amsgrad"]


def give_moments(
    optimizer: Optimizer, seed: LiveSeed, moments: Sequence[Mapping[str, Any]]
) -> None:
    """Let a seed's parameters go on with the optimizer state of its trial."""
    for parameter, state in zip(seed.parameters, moments, strict=False):
        if state:
            optimizer.state[parameter] = dict(state)
