"""Help for growing hosts by hand and for telling whether anything moved."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kasmina import discover
from kasmina.blueprints import catalogue
from kasmina.slots.grafted_seed import GraftedSeed
from kasmina.slots.slot import attach_seed


def wake(module: nn.Module, rng_seed: int = 3) -> nn.Module:
    """Make a body that is zero at birth put out something."""
    generator = torch.Generator().manual_seed(rng_seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return module


def grow(
    model: nn.Module,
    site: str,
    example: Tensor,
    *,
    alpha: float,
    blueprint: str = "low_rank",
    number: int = 0,
    body: nn.Module | None = None,
) -> GraftedSeed:
    """Hang a seed with an awake body on a site; one that is given is shielded."""
    given = body is not None
    shape = next(s.shape for s in discover(model, (example,)) if s.name == site)
    if body is None:
        body = wake(catalogue[blueprint].build(shape, number), number)
    seed = GraftedSeed(
        body, seed=f"{site}/{number}", blueprint=blueprint, shape=shape, shielded=given
    )
    attach_seed(site, model.get_submodule(site), seed)
    seed.blend(alpha)
    return seed


def rng_streams() -> list[Any]:
    """The state of every global random stream, in values that compare."""
    name, keys, *rest = np.random.get_state()
    return [random.getstate(), name, keys.tolist(), rest, torch.get_rng_state().tolist()]


def bits(tensor: Tensor) -> bytes:
    """The bytes of a tensor: unlike `==` they tell -0.0 from 0.0."""
    return tensor.detach().contiguous().numpy().tobytes()


def state_bits(state: Mapping[str, Tensor]) -> dict[str, bytes]:
    return {name: bits(tensor) for name, tensor in state.items()}


def everything(model: nn.Module) -> dict[str, Any]:
    """All of a model that a guest could disturb: weights, buffers, gradients, modes, classes."""
    return {
        "state": state_bits(model.state_dict()),
        "grads": {n: None if p.grad is None else bits(p.grad) for n, p in model.named_parameters()},
        "trainable": {n: p.requires_grad for n, p in model.named_parameters()},
        "modules": {n: (type(m), m.training) for n, m in model.named_modules()},
        "rng": rng_streams(),
    }


class Raises(nn.Module):
    def __init__(self, error: type[Exception] = ValueError) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        raise self.error("no luck today\nsecond line")


class Returns(nn.Module):
    """Returns whatever a function makes of the input."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


class Xor(nn.Module):
    """Two linear layers: no weights of theirs solve an exclusive or, a nonlinear seed does."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(2, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def xor_batches(num_batches: int, rng_seed: int, size: int = 64) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(rng_seed)
    x = torch.rand(num_batches, size, 2, generator=generator) * 2 - 1
    return [(part, (part[:, 0] * part[:, 1] > 0).long()) for part in x]


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    x, y = batch
    return nn.functional.cross_entropy(model(x), y)
