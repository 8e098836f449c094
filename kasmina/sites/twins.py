"""Twins: two submodules that some code of the user's pairs parameter by parameter, by position.

A moving average, a teacher or a target network is a frozen or unused copy of the trained one, and
`zip(a.parameters(), b.parameters())` keeps it in step. A seed in one of the two would break or,
worse, silently shift that pairing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn


def twins(model: nn.Module, num_calls: Mapping[str, int]) -> dict[str, str]:
    """Trained submodules that have a twin, by name: the twin's name.

    Both must have names of their own (not numbers: the members of a stack are alike by design),
    the same class and parameters of the same names and shapes; the twin is frozen or never called.

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
            name for name in names if _is_copy(model.get_submodule(name), num_calls.get(name))
        ]
        originals = [name for name in names if name not in copies]
        if copies:
            found.update(dict.fromkeys(originals, copies[0]))
    return found


def _is_copy(module: nn.Module, num_calls: int | None) -> bool:
    return num_calls == 0 or not any(p.requires_grad for p in module.parameters())
