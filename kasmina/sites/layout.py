"""What a module declares of its output's axes, and which axis carries the channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

_AXES_OF_NORMS: Final[dict[type[nn.Module], int]] = {
    nn.BatchNorm2d: 4,
    nn.BatchNorm3d: 5,
    nn.InstanceNorm1d: 3,
    nn.InstanceNorm2d: 4,
    nn.InstanceNorm3d: 5,
}
LEAVES: Final = (
    nn.Linear,
    nn.Bilinear,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.Embedding,
    nn.EmbeddingBag,
    nn.GroupNorm,
    nn.MultiheadAttention,
    nn.RNNBase,
    _ConvNd,
    _NormBase,
)
"""Modules of torch that declare what their output's axes mean."""


@dataclass(frozen=True)
class Layout:
    """The axes of a module's output, as far as its class and arguments say."""

    channel_axis: int
    """1 or -1."""
    channels: int
    num_axes: int | None = None
    """Axes of a batched output; None if there may be any number."""
    batch_axis: int | None = None
    """0 or 1; None: that of what came in."""

    def is_unbatched(self, num_axes: int) -> bool:
        """Whether an output with so many axes lacks the batch axis."""
        return self.num_axes is not None and num_axes < self.num_axes


def layout_of(module: nn.Module) -> Layout | None:
    """What a module of torch declares; None for every other."""
    if isinstance(module, _ConvNd):
        return Layout(1, module.out_channels, len(module.kernel_size) + 2, 0)
    if isinstance(module, _NormBase):
        num_axes = next((n for kind, n in _AXES_OF_NORMS.items() if isinstance(module, kind)), None)
        return Layout(1, module.num_features, num_axes, 0)
    if isinstance(module, nn.GroupNorm):
        return Layout(1, module.num_channels, None, 0)
    if isinstance(module, nn.RNNBase):
        width = (module.proj_size or module.hidden_size) * (2 if module.bidirectional else 1)
        return Layout(-1, width, 3, 0 if module.batch_first else 1)
    if isinstance(module, nn.MultiheadAttention):
        return Layout(-1, module.embed_dim, 3, 0 if module.batch_first else 1)
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return Layout(-1, module.embedding_dim)
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        # Over more than the last axis it may be a norm of whole images, channels first.
        sizes = module.normalized_shape
        return Layout(-1, sizes[0]) if len(sizes) == 1 else None
    if isinstance(module, nn.Linear | nn.Bilinear):
        return Layout(-1, module.out_features)
    return None


def channel_axis(
    module: nn.Module, sizes: Sequence[int], inside: Sequence[tuple[Layout, int]]
) -> int | str:
    """The channel axis of an output, 1 or -1, or why it cannot be told.

    The module itself says so if it is torch's own; else the last layer of a known kind that it
    called, of whose channels an axis of the output must be.

    Args:
        sizes: the output's sizes.
        inside: the known layers that were called in the module, in order, itself included, each
            with the number of axes that it put out.
    """
    own = layout_of(module)
    is_stock = own is not None and type(module).__module__.startswith("torch.nn.")
    if any(layout.is_unbatched(num_axes) for layout, num_axes in inside[-1:]):
        return "it is called without a batch axis; give it batches, of one example if need be"
    if len(sizes) == 2:
        return -1
    if own is not None and is_stock:
        return own.channel_axis
    if not inside:
        return _by_parameters(module, sizes)
    last, num_axes = inside[-1]
    fitting = [axis for axis in (1, -1) if sizes[axis] == last.channels]
    if len(fitting) == 1:
        return fitting[0]
    kept = num_axes == len(sizes) and inside[0][0].channel_axis == last.channel_axis
    if len(fitting) == 2 and not kept:
        return (
            f"its channels may be axis 1 or the last one, both of size {last.channels}; "
            "survey it with an example of another size"
        )
    return last.channel_axis


def _by_parameters(module: nn.Module, sizes: Sequence[int]) -> int:
    """For a layer of the user's own: the axis that has the size of one of its parameters."""
    known = {size for own in module.parameters() for size in own.shape}
    fitting = [axis for axis in (1, -1) if sizes[axis] in known]
    if len(fitting) == 1:
        return fitting[0]
    return 1 if len(sizes) >= 4 else -1
