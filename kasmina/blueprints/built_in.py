"""The built-in blueprints: all plain torch.nn, so an exported network needs no Esper import.

Zero at birth through the last layer: the seed's output is exactly 0 while the last layer already
has a gradient. The norm comes first because a zero convolution followed by a norm would leave 0
with full variance after one step, and no ReLU follows the last layer, because at 0 its gradient is
0 and the seed could never start. No BatchNorm: its statistics would move in every trial.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from kasmina.blueprints.attention import attention, is_attendable
from kasmina.blueprints.convolutions import (
    conv,
    conv_two_layers,
    depthwise_conv,
    depthwise_conv_k5,
    dilated_depthwise_conv,
)
from kasmina.blueprints.definition import Blueprint
from kasmina.blueprints.layers import fits_window, is_image_like, is_mixable, is_normalisable
from kasmina.blueprints.per_position import (
    bottleneck_mlp,
    gated_mlp,
    low_rank,
    pointwise_conv,
    rescale,
    widen,
)
from kasmina.blueprints.risk import Risk
from kasmina.blueprints.squeeze_excite import is_poolable, squeeze_excite

_low = partial(Blueprint, risk=Risk.LOW, built_in=True)
_medium = partial(Blueprint, risk=Risk.MEDIUM, built_in=True)
_near, _far = partial(fits_window, reach=1), partial(fits_window, reach=2)

BUILT_IN: Final = (
    _low("low_rank", low_rank, is_mixable),
    _low("bottleneck_mlp", bottleneck_mlp, is_mixable),
    _low("gated_mlp", gated_mlp, is_mixable),
    _low("widen", widen, is_mixable),
    _low("pointwise_conv", pointwise_conv, is_image_like),
    _medium("depthwise_conv", depthwise_conv, _near),
    _medium("depthwise_conv_k5", depthwise_conv_k5, _far),
    _medium("dilated_depthwise_conv", dilated_depthwise_conv, _far),
    _medium("conv", conv, _near),
    _medium("conv_two_layers", conv_two_layers, _near),
    _medium("squeeze_excite", squeeze_excite, is_poolable),
    _medium("attention", attention, is_attendable),
    _low("norm", rescale, is_normalisable),
)
"""In the order in which ties of a race are decided."""
