"""Self-attention: every position hears of all others, or of all earlier ones."""

from __future__ import annotations

import math
from typing import Any, Final

from torch import nn

from kasmina.blueprints.layers import is_image_like, norm_or_nothing, zeroed
from kasmina.blueprints.traced import Run, traced
from kasmina.sites.shape import SiteShape

_MAX_HEADS: Final = 8
_MIN_HEAD_CHANNELS: Final = 8
_MIN_CHANNELS: Final = 4
_MAX_IMAGE_POSITIONS: Final = 256
"""Every pixel is compared with every other: past this a convolution is the cheaper way to mix."""

_attend: Final[Any] = nn.functional.scaled_dot_product_attention


def is_attendable(shape: SiteShape) -> bool:
    """[B, L, C], [L, B, C] or a small image-like shape, with something to compare."""
    if shape.channels < _MIN_CHANNELS or _num_positions(shape) < 2:
        return False
    if not shape.channels_first:
        return len(shape) == 3
    ordered = not shape.causal or shape.num_spatial == 1
    return is_image_like(shape) and ordered and _num_positions(shape) <= _MAX_IMAGE_POSITIONS


def attention(shape: SiteShape) -> nn.Module:
    """Multi-head self-attention over the positions; at a causal shape over no later ones.

    It has as many heads, up to 8, as leave each of them 8 channels. Queries and keys have no bias:
    that of the keys cancels in the softmax and could never learn.
    """
    channels, causal = shape.channels, shape.causal
    heads = _num_heads(channels)

    def forward(run: Run, x: Any) -> Any:
        """The body, for `traced`."""
        tokens = _batch_first(shape, run("norm", x))
        # [B, L, 3 * C] to three of [B, heads, L, C / heads].
        projected = run("project", tokens).unflatten(-1, (3, heads, channels // heads))
        query, key, value = (projected.select(2, part).transpose(1, 2) for part in range(3))
        attended = _attend(query, key, value, is_causal=causal)
        out = run("out", attended.transpose(1, 2).flatten(2))
        if shape.channels_first:
            return out.transpose(1, 2).reshape_as(x)
        return out.transpose(0, 1) if shape.batch_axis == 1 else out

    modules = {
        "norm": norm_or_nothing(shape),
        "project": nn.Linear(channels, 3 * channels, bias=False),
        "out": zeroed(nn.Linear(channels, channels)),
    }
    return traced("SelfAttention", modules, forward)


def _batch_first(shape: SiteShape, x: Any) -> Any:
    """Any accepted shape as [B, L, C]."""
    if shape.channels_first:
        return x.flatten(2).transpose(1, 2)
    return x.transpose(0, 1) if shape.batch_axis == 1 else x


def _num_positions(shape: SiteShape) -> int:
    if shape.channels_first:
        return math.prod(shape[2:])
    return math.prod(shape[:-1]) // shape[shape.batch_axis]


def _num_heads(channels: int) -> int:
    most = max(1, min(_MAX_HEADS, channels // _MIN_HEAD_CHANNELS))
    return next(heads for heads in range(most, 0, -1) if channels % heads == 0)
