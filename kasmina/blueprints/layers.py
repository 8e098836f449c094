"""The layers that built-in blueprints are made of, chosen by the shape of a site."""

from __future__ import annotations

import math
from typing import Any, Final

from torch import nn

from kasmina.blueprints.traced import Run, traced
from kasmina.sites.shape import SiteShape

_CONVOLUTIONS: Final = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_MIN_NORMALISED: Final = 4
"""Of fewer values a norm leaves little more than their signs, of one value nothing at all."""


def is_image_like(shape: SiteShape) -> bool:
    """One to three spatial axes after the channels: what a convolution needs."""
    return shape.channels_first and shape.num_spatial in _CONVOLUTIONS


def is_mixable(shape: SiteShape) -> bool:
    """Channels last, or image-like: what a linear map over the channels needs."""
    return not shape.channels_first or is_image_like(shape)


def fits_window(shape: SiteShape, reach: int) -> bool:
    """Image-like, and a window that reaches this far from its middle sees a neighbour there.

    Where later positions must not be seen the window leans back, which is built for one axis.
    """
    far = is_image_like(shape) and max(shape[2:]) > reach
    return far and (not shape.causal or shape.num_spatial == 1)


def is_normalisable(shape: SiteShape) -> bool:
    """Whether there is more than one value to take a mean and a deviation of."""
    return _num_normalised(shape) > 1


def norm_or_nothing(shape: SiteShape) -> nn.Module:
    """The norm that a body begins with; none where it would leave too little of the input."""
    return norm(shape) if _num_normalised(shape) >= _MIN_NORMALISED else nn.Identity()


def norm(shape: SiteShape) -> nn.Module:
    """Mean 0 and deviation 1 per example, or per position where the channels are last.

    At a causal shape it is per position too: statistics over positions would tell of later ones.
    """
    if not shape.channels_first:
        return nn.LayerNorm(shape.channels)
    if not shape.causal:
        return nn.GroupNorm(1, shape.channels)

    def forward(run: Run, x: Any) -> Any:
        return run("norm", x.movedim(1, -1)).movedim(-1, 1)

    return traced("ChannelNorm", {"norm": nn.LayerNorm(shape.channels)}, forward)


def _num_normalised(shape: SiteShape) -> int:
    """How many values share one mean."""
    pooled = shape.channels_first and not shape.causal
    return math.prod(shape[1:]) if pooled else shape.channels


def mix(shape: SiteShape, inputs: int, outputs: int, *, bias: bool = True) -> nn.Module:
    """A linear map over the channel axis."""
    if not shape.channels_first:
        return nn.Linear(inputs, outputs, bias=bias)
    return _CONVOLUTIONS[shape.num_spatial](inputs, outputs, 1, bias=bias)


def window(
    shape: SiteShape, kernel_size: int, *, dilation: int = 1, groups: int = 1
) -> list[nn.Module]:
    """A convolution that keeps channels and sizes; over this and earlier positions if causal."""
    reach = dilation * (kernel_size // 2)
    convolution = _CONVOLUTIONS[shape.num_spatial](
        shape.channels,
        shape.channels,
        kernel_size,
        padding=0 if shape.causal else reach,
        dilation=dilation,
        groups=groups,
    )
    return [nn.ConstantPad1d((2 * reach, 0), 0.0), convolution] if shape.causal else [convolution]


def zeroed(module: nn.Module) -> nn.Module:
    """The same module with all of its parameters 0."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
