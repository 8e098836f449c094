"""Side by side: modules that are built alike, run as one on neighbouring chunks of channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from kasmina.guard import readable
from kasmina.sites.shape import SiteShape
from kasmina.slots.gate import Gate

_PER_CHANNEL: Final = (
    nn.Identity,
    nn.ReLU,
    nn.GELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Tanh,
    nn.ConstantPad1d,
)
"""Layers without weights that treat every channel alike, wherever the channels are."""
_Column = tuple[nn.Module, Tensor | None, Tensor | None]
"""A layer of the first body; weights and biases of all bodies there, [num, *shape], or None."""
_CONVOLUTIONS: Final[dict[type[nn.Module], Callable[..., Tensor]]] = {
    nn.Conv1d: nn.functional.conv1d,
    nn.Conv2d: nn.functional.conv2d,
    nn.Conv3d: nn.functional.conv3d,
}


def recipe_of(body: nn.Module, shape: SiteShape) -> str | None:
    """What two bodies must share to run side by side; None if this one runs alone only.

    That is a Sequential of plain layers, without hooks, that ends in one with weights.
    """
    layers = _layers_of(body)
    if not all(_is_plain(layer, shape) for layer in [body, *layers]):
        return None
    if not layers or isinstance(layers[-1], _PER_CHANNEL):
        return None
    for before, after in pairwise(layers):
        if isinstance(before, nn.LayerNorm) and not isinstance(after, nn.Linear):
            return None
    return repr(layers)


def _layers_of(body: nn.Module) -> list[nn.Module]:
    """The layers of a plain Sequential, or the module itself."""
    return list(body) if type(body) is nn.Sequential else [body]


def _is_plain(layer: nn.Module, shape: SiteShape) -> bool:
    """Whether a layer does what its class says and can be run side by side with its like."""
    hooks = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks
    if hooks or "forward" in layer.__dict__:
        return False
    kind = type(layer)
    if kind in _PER_CHANNEL or kind is nn.Sequential:
        return True
    if isinstance(layer, nn.GroupNorm):
        return shape.channels_first and layer.affine
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return shape.channels_first and kind in _CONVOLUTIONS and layer.padding_mode == "zeros"
    if isinstance(layer, nn.LayerNorm):
        plain = len(layer.normalized_shape) == 1 and layer.bias is not None
        return plain and not shape.channels_first
    return kind is nn.Linear and not shape.channels_first


class SideBySide:
    """Bodies of one recipe, each on its own chunk of the channels, as one function.

    The function's value is, up to the order of sums, that of running body i on chunk i, scaled by
    alpha i. Weights are looked up at every call, so that whatever replaces them is respected.

    Args:
        bodies: modules for which `recipe_of` is the same and not None.
        shape: the shape of one chunk.
    """

    def __init__(self, bodies: Sequence[nn.Module], shape: SiteShape):
        self._columns = [list(layers) for layers in zip(*map(_layers_of, bodies), strict=True)]
        self._channels_first = shape.channels_first
        self._num = len(bodies)

    def __call__(self, host: Tensor, alphas: Tensor, gate: Gate | None = None) -> Tensor:
        """Run all bodies.

        Args:
            host: the chunks beside one another, [B, num * channels, ...] or
                [..., num * channels].
            alphas: blend weights, float32 [num].
            gate: what gradients pass on their way out of the kernel.

        Returns:
            What is to be added to `host`, of the same shape.
        """
        if gate is not None:
            host = gate.into(host, 1 if self._channels_first else -1, self._num)
        if self._channels_first:
            grown = self._convolve(readable(host), alphas, gate)
        else:
            rows = host.reshape(-1, self._num, host.shape[-1] // self._num)
            grown = self._multiply(rows, alphas, gate).reshape(host.shape)
        return grown if gate is None else gate.out_of(grown)

    def _layers(self, alphas: Tensor, gate: Gate | None) -> list[_Column]:
        """Each layer of the first body, with the weights of all bodies side by side."""
        columns = []
        for layers in self._columns:
            weight, bias = _gathered(layers, "weight", gate), _gathered(layers, "bias", gate)
            if layers is self._columns[-1]:
                weight, bias = _scaled(weight, alphas), _scaled(bias, alphas)
            columns.append((layers[0], weight, bias))
        return columns

    def _convolve(self, x: Tensor, alphas: Tensor, gate: Gate | None) -> Tensor:
        """Every layer as one grouped operation over the channel axis."""
        for layer, weight, bias in self._layers(alphas, gate):
            if weight is None:
                x = layer(x)
                continue
            flat = None if bias is None else bias.flatten()
            if isinstance(layer, nn.GroupNorm):
                groups = self._num * layer.num_groups
                x = nn.functional.group_norm(x, groups, weight.flatten(), flat, layer.eps)
                continue
            x = _CONVOLUTIONS[type(layer)](
                x,
                weight.flatten(0, 1),
                flat,
                layer.stride,
                layer.padding,
                layer.dilation,
                self._num * cast(Any, layer).groups,
            )
        return x

    def _multiply(self, x: Tensor, alphas: Tensor, gate: Gate | None) -> Tensor:
        """Every layer as one batched operation over rows [N, num, channels].

        The scale and shift of a norm go into the weights of the linear map after it, which are
        far smaller than the rows.
        """
        scale = shift = None
        for layer, weight, bias in self._layers(alphas, gate):
            if weight is None:
                x = layer(x)
                continue
            if isinstance(layer, nn.LayerNorm):
                x = nn.functional.layer_norm(x, layer.normalized_shape, eps=layer.eps)
                scale, shift = weight, bias
                continue
            if scale is not None and shift is not None:
                shifted = (weight @ shift.unsqueeze(-1)).squeeze(-1)
                bias = shifted if bias is None else bias + shifted
                weight = weight * scale.unsqueeze(1)
                scale = shift = None
            x = _products(x, weight, bias)
        if scale is not None and shift is not None:
            x = x * scale + shift
        return x


def _products(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """[N, num, inputs] times each one's weight [num, outputs, inputs]."""
    rows, columns = x.transpose(0, 1), weight.transpose(1, 2)
    if bias is None:
        return torch.bmm(rows, columns).transpose(0, 1)
    return torch.baddbmm(bias.unsqueeze(1), rows, columns).transpose(0, 1)


def _gathered(layers: Sequence[nn.Module], name: str, gate: Gate | None) -> Tensor | None:
    """One parameter of every layer, [num, *shape]; None where the layers have none."""
    held: list[Any] = [layer._parameters.get(name) for layer in layers]
    if held[0] is None:
        return None
    stacked = torch.stack(held)
    return stacked if gate is None else gate.into(stacked, 0, len(held))


def _scaled(weights: Tensor | None, alphas: Tensor) -> Tensor | None:
    """Each seed's weights times its alpha."""
    if weights is None:
        return None
    return weights * alphas.view(-1, *[1] * (weights.ndim - 1)).to(weights.dtype)
