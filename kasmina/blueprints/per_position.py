"""Blueprints that map each position by itself. Each is a norm, a body and a zero last layer."""

from __future__ import annotations

from torch import nn

from kasmina.blueprints.layers import mix, norm, norm_or_nothing, zeroed
from kasmina.sites.shape import SiteShape


def low_rank(shape: SiteShape) -> nn.Module:
    """Down to an eighth of the channels (1 to 16) and up again, without a nonlinearity."""
    channels = shape.channels
    rank = min(16, max(1, channels // 8))
    down = mix(shape, channels, rank, bias=False)
    return nn.Sequential(norm_or_nothing(shape), down, zeroed(mix(shape, rank, channels)))


def bottleneck_mlp(shape: SiteShape) -> nn.Module:
    """Two layers over the channels with half as many units (at least 4) between them."""
    return _two_layers(shape, max(4, shape.channels // 2), nn.GELU())


def pointwise_conv(shape: SiteShape) -> nn.Module:
    """Two 1x1 convolutions with twice the channels between them."""
    return _two_layers(shape, max(4, 2 * shape.channels), nn.SiLU())


def widen(shape: SiteShape) -> nn.Module:
    """Four extra units per channel, computed from the site's output and added to it.

    A layer is widened so that its function stays: the new units' output weights are zero.
    """
    return _two_layers(shape, 4 * shape.channels, nn.SiLU())


def gated_mlp(shape: SiteShape) -> nn.Module:
    """Half as many units as channels (at least 4), each times a sigmoid gate of its own."""
    channels = shape.channels
    units = max(4, channels // 2)
    gate = nn.GLU(dim=shape.channel_axis)
    last = zeroed(mix(shape, units, channels))
    return nn.Sequential(norm_or_nothing(shape), mix(shape, channels, 2 * units), gate, last)


def rescale(shape: SiteShape) -> nn.Module:
    """A normalised copy of the output, scaled and shifted by zeros at birth."""
    return zeroed(norm(shape))


def _two_layers(shape: SiteShape, units: int, activation: nn.Module) -> nn.Module:
    channels = shape.channels
    first, last = mix(shape, channels, units), zeroed(mix(shape, units, channels))
    return nn.Sequential(norm_or_nothing(shape), first, activation, last)
