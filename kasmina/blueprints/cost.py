"""Cost: parameters and forward FLOPs of a blueprint, counted before anything is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kasmina.guard import attempt, describe
from kasmina.rng import isolated_rng
from kasmina.settings import kept_settings
from kasmina.sites.shape import SiteShape
from leyline import BlueprintError


@dataclass(frozen=True)
class Cost:
    """What a blueprint would add at one site."""

    num_parameters: int
    num_flops: int
    """Forward FLOPs per example, of matrix products, convolutions and attention, as
    torch.utils.flop_counter counts them (a multiplication and an addition are two). 0 if the
    forward fails: the proof at germination says why."""


@kept_settings()
def cost_of(name: str, factory: Callable[[SiteShape], nn.Module], shape: SiteShape) -> Cost:
    """Count on the meta device, which holds no memory; on the CPU only where that fails.

    Args:
        name: the blueprint's, for the error.
        factory: the blueprint's.
        shape: of the site; its batch is counted as 1.

    Raises:
        BlueprintError: the factory fails.
    """
    module = attempt(lambda: _built(factory, shape, "meta"))
    flops = 0 if isinstance(module, Exception) else _flops(module, shape, "meta")
    # Some initialisers and some forwards need real tensors.
    if isinstance(module, Exception) or isinstance(flops, Exception):
        module = attempt(lambda: _built(factory, shape, "cpu"))
        if isinstance(module, Exception):
            raise BlueprintError(
                f"blueprint {name!r} cannot be built for a site of shape {tuple(shape)}: "
                f"{describe(module)}; mend its factory, or let accepts= refuse this shape"
            ) from module
        flops = _flops(module, shape, "cpu")
    num_parameters = sum(parameter.numel() for parameter in module.parameters())
    return Cost(num_parameters, 0 if isinstance(flops, Exception) else flops)


def _built(factory: Callable[[SiteShape], nn.Module], shape: SiteShape, device: str) -> nn.Module:
    with isolated_rng(0), torch.device(device):
        return factory(shape)


def _flops(module: nn.Module, shape: SiteShape, device: str) -> int | Exception:
    """FLOPs of one forward pass over one example, or why there was none."""
    sizes = list(shape)
    sizes[shape.batch_axis] = 1

    def run() -> int:
        """One counted pass."""
        x = torch.zeros(sizes, device=device)
        with isolated_rng(0), torch.no_grad(), FlopCounterMode(display=False) as counter:
            module.eval()(x)
        return int(counter.get_total_flops())

    return attempt(run)
