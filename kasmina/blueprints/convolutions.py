"""Blueprints that look at neighbouring positions. Each ends in a zero map over the channels."""

from __future__ import annotations

from torch import nn

from kasmina.blueprints.layers import mix, norm_or_nothing, window, zeroed
from kasmina.sites.shape import SiteShape


def depthwise_conv(shape: SiteShape) -> nn.Module:
    """A 3-wide convolution of each channel by itself, then a map over the channels."""
    return _after_norm(shape, window(shape, 3, groups=shape.channels))


def depthwise_conv_k5(shape: SiteShape) -> nn.Module:
    """The same, 5 wide."""
    return _after_norm(shape, window(shape, 5, groups=shape.channels))


def dilated_depthwise_conv(shape: SiteShape) -> nn.Module:
    """The same, 3 taps over 5 positions."""
    return _after_norm(shape, window(shape, 3, dilation=2, groups=shape.channels))


def conv(shape: SiteShape) -> nn.Module:
    """A full 3-wide convolution, then a map over the channels."""
    return _after_norm(shape, window(shape, 3))


def conv_two_layers(shape: SiteShape) -> nn.Module:
    """Two full 3-wide convolutions, then a map over the channels."""
    return _after_norm(shape, [*window(shape, 3), nn.SiLU(), *window(shape, 3)])


def _after_norm(shape: SiteShape, layers: list[nn.Module]) -> nn.Module:
    # SiLU rather than ReLU: of very few channels all may be below 0 for every input, for good.
    last = zeroed(mix(shape, shape.channels, shape.channels))
    return nn.Sequential(norm_or_nothing(shape), *layers, nn.SiLU(), last)
