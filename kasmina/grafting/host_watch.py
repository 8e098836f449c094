"""The host watch: how far a training step moved the module that a seed is grafted on."""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from torch import Tensor, nn

from kasmina.grafting.late_numbers import LateNumbers
from kasmina.slots.slot import SLOT

_SAMPLE_SIZE: Final = 4096
"""Weights compared at most, but one of each tensor: a large layer costs no more than a small one,
and a checkpoint keeps 16 kB."""


class HostWatch:
    """Measures weight drift and gradient norm of a module without the seeds on it.

    Args:
        module: as it is before the first step that is to be measured; None if a saved state is
            loaded next.
    """

    def __init__(self, module: nn.Module | None):
        self._before = None if module is None else _sample(_own_parameters(module))
        self._late = LateNumbers()

    def measure(self, module: nn.Module, asks_for: frozenset[str]) -> dict[str, float]:
        """Measure the step that has just been made.

        Args:
            module: the same module.
            asks_for: "weight_drift", "gradient_norm" or both; others are not measured here.

        Returns:
            What is known, by name; on a GPU that of the step before.
        """
        parameters = _own_parameters(module)
        numbers: dict[str, Tensor] = {}
        if "weight_drift" in asks_for:
            before, self._before = self._before, _sample(parameters)
            if before is not None and self._before is not None and len(before):
                before = before.to(self._before.device)
                moved = torch.linalg.vector_norm(self._before - before)
                # Of weights that are all 0 any move is endless; they start so and soon are not.
                numbers["weight_drift"] = moved / torch.linalg.vector_norm(before).clamp_min(1e-12)
        gradients = [p.grad for p in parameters if p.grad is not None and not p.grad.is_sparse]
        if "gradient_norm" in asks_for and gradients:
            # In single precision: squares of half-precision numbers overflow.
            norms = [torch.linalg.vector_norm(g, dtype=torch.float32) for g in gradients]
            numbers["gradient_norm"] = torch.linalg.vector_norm(torch.stack(norms))
        return self._late.exchange(numbers)

    def state_dict(self) -> dict[str, Any]:
        """The sample of the weights and what has not been read yet."""
        return {"before": self._before, "late": self._late.wait()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self._before = state["before"]
        self._late.load(state["late"])


def _own_parameters(module: nn.Module) -> list[nn.Parameter]:
    """The floating parameters of the host's module, on the device of the first of them."""
    own = [p for name, p in module.named_parameters() if SLOT not in name.split(".")]
    floating = [p for p in own if p.is_floating_point()]
    return [p for p in floating if p.device == floating[0].device]


def _sample(parameters: list[nn.Parameter]) -> Tensor | None:
    """An even sample of all weights, in single precision; None if there are none."""
    if not parameters:
        return None
    stride = max(1, math.ceil(sum(p.numel() for p in parameters) / _SAMPLE_SIZE))
    return torch.cat([p.detach().reshape(-1)[::stride].float() for p in parameters])
