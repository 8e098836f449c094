"""A grafted seed: one blueprint's module, blended into its site by alpha."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kasmina.guard import fault_of
from kasmina.sites.shape import SiteShape


class GraftedSeed(nn.Module):
    """One blueprint's module blended into its site: h + alpha * body(h).

    While inactive (alpha 0) the body is not run at all: 0 * Inf is NaN, and adding 0 * y would
    turn -0.0 into +0.0. Alpha is a 0-dim float32 buffer, so changing it recompiles nothing.

    Args:
        body: maps a tensor of `shape` (any batch size) to one of the same shape.
        shape: what the body sees: the site's output, or one chunk of its channels.
        chunk: which of how many equal parts of the site's channels, from 0; (0, 1) is all.
    """

    alpha: Tensor

    def __init__(
        self,
        body: nn.Module,
        *,
        seed: str,
        blueprint: str,
        shape: SiteShape,
        chunk: tuple[int, int] = (0, 1),
    ):
        super().__init__()
        self.body = body
        self.seed = seed
        self.blueprint = blueprint
        self.shape = shape
        self.chunk = chunk
        self.active = False
        self.fault: str | None = None
        self.register_buffer("alpha", torch.zeros(()))

    def describe(self) -> dict[str, Any]:
        """Plain values from which `from_description` builds an equal seed, weights apart."""
        return {
            "seed": self.seed,
            "blueprint": self.blueprint,
            "shape": self.shape.to_dict(),
            "chunk": list(self.chunk),
            "active": self.active,
            "trainable": any(p.requires_grad for p in self.parameters()),
        }

    def blend(self, alpha: float) -> None:
        """Set alpha, 0 to 1. A seed that has faulted stays out of the forward pass."""
        self.alpha.fill_(alpha)
        self.active = alpha > 0.0 and self.fault is None

    def forward(self, host: Tensor) -> Tensor:
        """Extend the host's output; a body that faults is out from this call on."""
        if not self.active:
            return host
        grown = fault_of(self.body, host)
        if isinstance(grown, str):
            self.fault, self.active = grown, False
            return host
        return host + (self.alpha * grown).to(host.dtype)
