"""Twins: two submodules that some code of the user's pairs parameter by parameter, by position.

A moving average, a teacher or a target network is a frozen or unused copy of the trained one, and
`zip(a.parameters(), b.parameters())` keeps it in step. A seed in one of the two would break or,
worse, silently shift that pairing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

_MIN_LIKENESS: Final = 0.5
"""Cosine between the weights of a network and its copy; of two apart it is near 0."""


def twins(model: nn.Module, num_calls: Mapping[str, int]) -> dict[str, str]:
    """Trained submodules that have a twin, by name: the twin's name.

    Both must have names of their own (not numbers: the members of a stack are alike by design),
    the same class and parameters of the same names and shapes, whose values are alike; the twin is
    frozen or never called. A frozen layer of a pretrained model is no copy of the trained one
    beside it that has its shape: their weights have nothing in common.

    Args:
        num_calls: calls in a dry run of the submodules that were observed.
    """
    alike: dict[Any, list[str]] = {}
    for name, module in model.named_modules():
        shapes = tuple((n, tuple(p.shape)) for n, p in module.named_parameters())
        if shapes and name and not name.rpartition(".")[2].isdecimal():
            alike.setdefault((type(module), shapes), []).append(name)
    found = {}
    for names in alike.values():
        copies = [
            name for name in names if _may_be_copy(model.get_submodule(name), num_calls.get(name))
        ]
        for name in names:
            module = model.get_submodule(name)
            twin = next((c for c in copies if _are_alike(module, model.get_submodule(c))), None)
            if name not in copies and twin is not None:
                found[name] = twin
    return found


def _may_be_copy(module: nn.Module, num_calls: int | None) -> bool:
    return num_calls == 0 or not any(p.requires_grad for p in module.parameters())


def _are_alike(one: nn.Module, other: nn.Module) -> bool:
    if {id(p) for p in one.parameters()} & {id(p) for p in other.parameters()}:
        return False  # tied weights are one, and no copy has to be kept in step
    ours, theirs = _weights(one), _weights(other)
    if not ours or not theirs:
        return False
    pairs = [(ours[name], theirs[name]) for name in ours if name in theirs]
    product = sum(float((a * b).sum()) for a, b in pairs)
    sizes = [sum(float((pair[side] ** 2).sum()) for pair in pairs) for side in (0, 1)]
    return product > _MIN_LIKENESS * math.sqrt(sizes[0] * sizes[1])


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """Parameters that tell something: those of a fresh norm, all ones or zeros, do not."""
    with torch.no_grad():
        held = {name: p.detach().double().cpu() for name, p in module.named_parameters()}
    return {name: p for name, p in held.items() if p.numel() > 1 and bool((p != p.mean()).any())}
