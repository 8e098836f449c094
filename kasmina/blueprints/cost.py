"""Cost: parameters, FLOPs and work of a blueprint, counted before anything is built."""

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
from kasmina.work import count_work
from leyline import BlueprintError


@dataclass(frozen=True)
class Cost:
    """What a blueprint would add at one site."""

    num_parameters: int
    num_flops: int
    """Forward FLOPs per example, of matrix products, convolutions and attention, as
    torch.utils.flop_counter counts them (a multiplication and an addition are two). 0 if the
    forward fails: the proof at germination says why."""
    work: int
    """That of a forward pass over the whole batch of the shape, as `count_work` has it; 0 as
    above."""


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
    counts = module if isinstance(module, Exception) else _counts(module, shape, "meta")
    # Some initialisers and some forwards need real tensors.
    if isinstance(module, Exception) or isinstance(counts, Exception):
        module = attempt(lambda: _built(factory, shape, "cpu"))
        if isinstance(module, Exception):
            raise BlueprintError(
                f"blueprint {name!r} cannot be built for a site of shape {tuple(shape)}: "
                f"{describe(module)}; mend its factory, or let accepts= refuse this shape"
            ) from module
        counts = _counts(module, shape, "cpu")
    num_parameters = sum(parameter.numel() for parameter in module.parameters())
    return Cost(num_parameters, *((0, 0) if isinstance(counts, Exception) else counts))


def _built(factory: Callable[[SiteShape], nn.Module], shape: SiteShape, device: str) -> nn.Module:
    with isolated_rng(0), torch.device(device):
        return factory(shape)


def _counts(module: nn.Module, shape: SiteShape, device: str) -> tuple[int, int] | Exception:
    """FLOPs of a forward pass over one example and the work of one over all; or why neither."""
    one = list(shape)
    one[shape.batch_axis] = 1

    def run() -> tuple[int, int]:
        """Two counted passes."""
        x, batch = torch.zeros(one, device=device), torch.zeros(tuple(shape), device=device)
        with isolated_rng(0), torch.no_grad():
            module.eval()
            with FlopCounterMode(display=False) as counter:
                module(x)
            return int(counter.get_total_flops()), count_work(lambda: module(batch))

    return attempt(run)
