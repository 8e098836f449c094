"""The built-in blueprints. Each is a norm, a body and a zero last layer, all plain torch.nn.

Zero at birth through the last layer: the seed's output is exactly 0 while the last layer already
has a gradient. The norm comes first because a zero convolution followed by a norm would leave 0
with full variance after one step. Plain torch.nn, so an exported network needs no Esper import.
"""

from __future__ import annotations

from typing import Final

from torch import nn

from kasmina.blueprints.registry import Blueprint, accept_all
from kasmina.sites.shape import SiteShape

_CONVOLUTIONS: Final = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_KERNEL: Final = 3


def is_image_like(shape: SiteShape) -> bool:
    """One to three spatial axes after the channels: what a convolution needs."""
    return shape.channels_first and shape.num_spatial in _CONVOLUTIONS


def is_mixable(shape: SiteShape) -> bool:
    """Channels last, or image-like: what a linear map over the channels needs."""
    return not shape.channels_first or is_image_like(shape)


def _norm(shape: SiteShape) -> nn.Module:
    if shape.channels_first:
        return nn.GroupNorm(1, shape.channels)
    return nn.LayerNorm(shape.channels)


def _mix(shape: SiteShape, inputs: int, outputs: int, *, bias: bool = True) -> nn.Module:
    """A linear map over the channel axis."""
    if not shape.channels_first:
        return nn.Linear(inputs, outputs, bias=bias)
    return _CONVOLUTIONS[shape.num_spatial](inputs, outputs, 1, bias=bias)


def _zero(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def low_rank(shape: SiteShape) -> nn.Module:
    """Down to an eighth of the channels (1 to 16) and up again, without a nonlinearity."""
    channels = shape.channels
    rank = min(16, max(1, channels // 8))
    down = _mix(shape, channels, rank, bias=False)
    return nn.Sequential(_norm(shape), down, _zero(_mix(shape, rank, channels)))


def bottleneck_mlp(shape: SiteShape) -> nn.Module:
    """Two layers over the channels with half as many units (at least 4) between them."""
    channels = shape.channels
    hidden = max(4, channels // 2)
    down, up = _mix(shape, channels, hidden), _zero(_mix(shape, hidden, channels))
    return nn.Sequential(_norm(shape), down, nn.GELU(), up)


def pointwise_conv(shape: SiteShape) -> nn.Module:
    """Two 1x1 convolutions with twice the channels between them."""
    channels = shape.channels
    wide, narrow = _mix(shape, channels, 2 * channels), _zero(_mix(shape, 2 * channels, channels))
    return nn.Sequential(_norm(shape), wide, nn.ReLU(), narrow)


def depthwise_conv(shape: SiteShape) -> nn.Module:
    """A 3-wide convolution of each channel by itself, then a 1x1 mix."""
    channels = shape.channels
    convolution = _CONVOLUTIONS[shape.num_spatial](
        channels, channels, _KERNEL, padding=_KERNEL // 2, groups=channels
    )
    mix = _zero(_mix(shape, channels, channels))
    return nn.Sequential(_norm(shape), convolution, nn.ReLU(), mix)


def conv(shape: SiteShape) -> nn.Module:
    """A full 3-wide convolution, then a 1x1 mix."""
    channels = shape.channels
    convolution = _CONVOLUTIONS[shape.num_spatial](
        channels, channels, _KERNEL, padding=_KERNEL // 2
    )
    mix = _zero(_mix(shape, channels, channels))
    return nn.Sequential(_norm(shape), convolution, nn.ReLU(), mix)


def norm(shape: SiteShape) -> nn.Module:
    """A normalised copy of the output, scaled and shifted by zeros at birth."""
    return _zero(_norm(shape))


BUILT_IN: Final = (
    Blueprint("low_rank", low_rank, is_mixable, built_in=True),
    Blueprint("bottleneck_mlp", bottleneck_mlp, is_mixable, built_in=True),
    Blueprint("pointwise_conv", pointwise_conv, is_image_like, built_in=True),
    Blueprint("depthwise_conv", depthwise_conv, is_image_like, built_in=True),
    Blueprint("conv", conv, is_image_like, built_in=True),
    Blueprint("norm", norm, accept_all, built_in=True),
)
