"""Which optimizers a seed can join."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from torch.optim import Optimizer

from leyline import ConfigError

_CANNOT_GROW: Final[Mapping[str, str]] = MappingProxyType(
    {
        "LBFGS": "takes one parameter group only",
        "SparseAdam": "takes sparse gradients only, and seeds have dense ones",
        "Muon": "takes matrices only",
        "ZeroRedundancyOptimizer": "deals parameters out among processes once, at the start",
    }
)
"""By the name of the class or of one it derives from: importing them all would take long."""


def refuse_unfit(optimizers: Sequence[Any]) -> None:
    """Refuse optimizers that no seed can join.

    Raises:
        ConfigError: one is no optimizer, or none of them can take a seed's parameters.
    """
    for optimizer in optimizers:
        if not isinstance(optimizer, Optimizer):
            raise ConfigError(
                f"optimizer is a {type(optimizer).__name__}; give the torch.optim.Optimizer that "
                "trains the model"
            )
    if all(flaw(optimizer) for optimizer in optimizers):
        reasons = [f"{type(o).__name__} {flaw(o)}" for o in optimizers] or ["there is none"]
        raise ConfigError(
            f"no optimizer can take a seed's parameters: {'; '.join(reasons)}; "
            "use another optimizer, or policy='hold'"
        )


def flaw(optimizer: Optimizer) -> str:
    """Why no seed can join an optimizer; empty if one can."""
    kinds = (kind.__name__ for kind in type(optimizer).__mro__)
    known = next((_CANNOT_GROW[kind] for kind in kinds if kind in _CANNOT_GROW), "")
    if known:
        return known
    if any(group.get("lr") is None for group in optimizer.param_groups):
        return "has a parameter group without a learning rate, which seeds could follow"
    return ""
