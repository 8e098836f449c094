"""Squeeze and excite: what all channels are on average scales each of them."""

from __future__ import annotations

from typing import Any

from torch import nn

from kasmina.blueprints.layers import fits_window, mix, norm_or_nothing, zeroed
from kasmina.blueprints.traced import Run, traced
from kasmina.sites.shape import SiteShape


def is_poolable(shape: SiteShape) -> bool:
    """Image-like, with positions to average over, none of which is later than another."""
    return fits_window(shape, reach=1) and not shape.causal


def squeeze_excite(shape: SiteShape) -> nn.Module:
    """Add x * tanh(gate(averages of x)): at alpha 1 every channel is scaled by 0 to 2.

    Source: Hu et al., Squeeze-and-Excitation Networks (2018), with 1 + tanh for the sigmoid, so
    that a zero last layer changes nothing.
    """
    channels = shape.channels
    units = max(4, channels // 4)
    spatial = tuple(range(2, len(shape)))
    averages = SiteShape((*shape[:2], *(1 for _ in spatial)), shape.channel_axis)

    def forward(run: Run, x: Any) -> Any:
        return x * run("gate", x.mean(spatial, keepdim=True)).tanh()

    gate = nn.Sequential(
        norm_or_nothing(averages),
        mix(shape, channels, units),
        nn.SiLU(),
        zeroed(mix(shape, units, channels)),
    )
    return traced("SqueezeExcite", {"gate": gate}, forward)
