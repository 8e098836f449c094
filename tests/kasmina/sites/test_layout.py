"""The channel axis of outputs that no class of torch's own declares."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kasmina import survey
from tests.kasmina.sites.zoo import noise


class LayerNorm2d(nn.LayerNorm):
    """As torchvision has it: a LayerNorm by class, with the channels first."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Scale(nn.Module):
    """A layer of one's own: a parameter for each channel, on one axis or the other."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(sizes))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Patches(nn.Module):
    """Images to a sequence of patches, channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).flatten(2).transpose(1, 2)


class Branches(nn.Module):
    """As in Inception: the channels of two convolutions side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(4, 3, 1), nn.Conv2d(4, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.left(x), self.right(x)], 1)


IMAGE, SEQUENCE, SIGNAL = (2, 4, 6, 10), (2, 7, 4), (2, 4, 7)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@pytest.mark.parametrize(
    ("module", "sizes", "axis", "channels"),
    [
        (LayerNorm2d(4), IMAGE, 1, 4),
        (nn.LayerNorm([4, 6, 10]), IMAGE, 1, 4),
        (nn.LayerNorm(10), IMAGE, -1, 10),
        (nn.GroupNorm(2, 4), IMAGE, 1, 4),
        (Scale(4, 1, 1), IMAGE, 1, 4),
        (Scale(10), IMAGE, -1, 10),
        (Scale(4), SEQUENCE, -1, 4),
        (Scale(4, 1), SIGNAL, 1, 4),
        (Scale(1), SEQUENCE, -1, 4),
        (Patches(), IMAGE, -1, 8),
        (Branches(), IMAGE, 1, 8),
        (nn.ConvTranspose2d(4, 3, 2, stride=2), IMAGE, 1, 3),
        (nn.Conv3d(4, 5, 1), (2, 4, 3, 3, 3), 1, 5),
        (nn.BatchNorm1d(4), SIGNAL, 1, 4),
        (nn.BatchNorm1d(4), (3, 4), -1, 4),
        (nn.InstanceNorm1d(4), SIGNAL, 1, 4),
        (nn.RMSNorm(4), SEQUENCE, -1, 4),
        (nn.LSTM(4, 6, proj_size=3, bidirectional=True, batch_first=True), SEQUENCE, -1, 6),
        (nn.EmbeddingBag(9, 4), None, -1, 4),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_the_channels_are_where_the_layers_put_them(
    module: nn.Module, sizes: tuple[int, ...] | None, axis: int, channels: int
) -> None:
    """For layers of torch and of others: the declared axis, or the one that has the right size."""
    x = torch.arange(6).reshape(2, 3) if sizes is None else noise(*sizes)
    found = survey(nn.Sequential(module), (x,))
    (site,) = [site for site in found.sites if site.name == "0"]
    assert (site.shape.channel_axis, site.shape.channels) == (axis, channels)
