"""A walk through a module's tree, in torch's own order, without a generator for every level.

`Module.modules()` and `parameters()` take several times as long, which a boundary of many seeds
would feel.
"""

from __future__ import annotations

from torch import nn


def modules_of(root: nn.Module) -> list[nn.Module]:
    """A module and all below it, each once, parents first: what `root.modules()` gives."""
    found: dict[nn.Module, None] = {}
    left = [root]
    while left:
        module = left.pop()
        if module not in found:
            found[module] = None
            left += [child for child in reversed(module._modules.values()) if child is not None]
    return list(found)


def parameters_of(root: nn.Module) -> list[nn.Parameter]:
    """The parameters of a module and all below it, each once: what `root.parameters()` gives."""
    held = (p for module in modules_of(root) for p in module._parameters.values() if p is not None)
    return list(dict.fromkeys(held))
