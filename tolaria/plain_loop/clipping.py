"""Gradient clipping that leaves the host's gradients what they would be without seeds."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from kasmina.slots.slot import attached_seeds


def clip_gradients(model: nn.Module, max_norm: float) -> Tensor:
    """Scale the host's gradients to a norm, and those of every seed by themselves.

    Args:
        model: the host, with or without seeds.
        max_norm: the largest 2-norm that is left as it is, above 0.

    Returns:
        The norm of the host's gradients before, 0-dim: what `torch.nn.utils.clip_grad_norm_` gives
        for a model without seeds.
    """
    seeds = [list(seed.parameters()) for _, _, seed in attached_seeds(model).values()]
    grown = {id(parameter) for parameters in seeds for parameter in parameters}
    for parameters in seeds:
        clip_grad_norm_(parameters, max_norm)
    return clip_grad_norm_([p for p in model.parameters() if id(p) not in grown], max_norm)
