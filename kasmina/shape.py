"""The shape of what a site puts out, and which of its axes carries the channels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from torch import nn

_CHANNEL_FIRST_LEAVES = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.GroupNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
)


class SiteShape(tuple[int, ...]):
    """A tuple of sizes, batch first, that also knows its channel axis.

    Channels are on axis 1 for convolutions and image-like outputs, on the last axis for everything
    else ([B, C] counts as "last").
    """

    channel_axis: int

    def __new__(cls, sizes: Iterable[int], channel_axis: int) -> Self:
        """Build from sizes and the channel axis, 1 or -1."""
        shape = super().__new__(cls, tuple(int(size) for size in sizes))
        shape.channel_axis = channel_axis
        return shape

    def __getnewargs__(self) -> tuple[tuple[int, ...], int]:
        return tuple(self), self.channel_axis

    @property
    def channels(self) -> int:
        """Size of the channel axis."""
        return self[self.channel_axis]

    @property
    def channels_first(self) -> bool:
        """True for [B, C, ...] with at least one spatial axis."""
        return self.channel_axis == 1

    @property
    def num_spatial(self) -> int:
        """Axes after the channels, 0 when the channels come last."""
        return len(self) - 2 if self.channels_first else 0


def channel_axis_of(module: nn.Module, num_axes: int) -> int:
    """The channel axis of a module's output with `num_axes` axes: 1 or -1."""
    if num_axes <= 2:
        return -1
    if num_axes >= 4:
        return 1 if not isinstance(module, nn.Linear | nn.LayerNorm) else -1
    # Three axes are [B, C, L] after a convolution and [B, L, C] in a transformer; the last layer
    # of a known kind inside decides for a block.
    decided = -1
    for leaf in module.modules():
        if isinstance(leaf, _CHANNEL_FIRST_LEAVES):
            decided = 1
        elif isinstance(leaf, nn.Linear | nn.LayerNorm | nn.Embedding):
            decided = -1
    return decided
