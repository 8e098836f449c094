"""GroMo: TINY adds channels from its statistics, at fixed times, after a line search."""

from __future__ import annotations

from typing import Any, Final

import torch
import torch.nn.functional as F
from gromo.containers.sequential_growing_container import SequentialGrowingModel
from gromo.modules.conv2d_growing_module import FullConv2dGrowingModule
from gromo.modules.growing_normalisation import GrowingBatchNorm2d
from gromo.utils.training_utils import compute_statistics
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bench.growth.peers.changing import Changing
from bench.growth.task import Score, Task
from kasmina import count_flops
from tolaria.data.loader import EvalLoader

_NUM_GROWTHS: Final = 3
_GROWTH_SHARE: Final = 0.6
_ADDED_SHARE: Final = 0.5
"""Channels that a layer gains at most in each growth, as a share of its first width."""
_NUM_BATCHES: Final = 40
"""Of training examples, for the statistics of a layer."""
_SCALES: Final = (0.0, 0.1, 0.3, 0.5, 0.7, 1.0)
"""Tried in the line search; 0 is no growth."""


class FashionNet(SequentialGrowingModel):
    """The host of the task in the package's own modules: they cannot be put into an existing one.

    Its last layer cannot grow through the pooling, so that the first two convolutions do.
    """

    def __init__(self, width: int) -> None:
        super().__init__(in_features=1, out_features=10, device=torch.device("cpu"))
        convolutions: list[FullConv2dGrowingModule] = []
        sizes = ((1, width, 28), (width, 2 * width, 14), (2 * width, 4 * width, 7))
        for inner, outer, size in sizes:
            convolutions.append(
                FullConv2dGrowingModule(
                    inner,
                    outer,
                    3,
                    stride=2,
                    padding=1,
                    input_size=(size, size),
                    use_bias=False,
                    post_layer_function=nn.Sequential(GrowingBatchNorm2d(outer), nn.ReLU()),
                    previous_module=convolutions[-1] if convolutions else None,
                    allow_growing=bool(convolutions),
                    device=torch.device("cpu"),
                )
            )
        self.convolutions = nn.ModuleList(convolutions)
        self.head = nn.Linear(4 * width, 10)
        self._growable_layers = convolutions[1:]
        self.set_growing_layers("all")

    def forward(self, x: Tensor) -> Tensor:
        for convolution in self.convolutions:
            x = convolution(x)
        return self.head(x.mean((2, 3)))

    def extended_forward(self, x: Tensor, mask: dict[str, Any] | None = None) -> Tensor:
        """With the channels that are on offer, at the scale set."""
        extension = None
        for convolution in self.convolutions:
            x, extension = convolution.extended_forward(x, extension)
        return self.head(x.mean((2, 3)))


def start(task: Task, model: nn.Module, optimizer: Optimizer, scheduler: LambdaLR) -> _Growing:
    """Grow a FashionNet beside the loop."""
    assert isinstance(model, FashionNet)
    return _Growing(task, model, optimizer)


class _Growing(Changing):
    """Grows both layers, one after the other, three times."""

    model: FashionNet

    def __init__(self, task: Task, model: FashionNet, optimizer: Optimizer) -> None:
        super().__init__(task, model, optimizer)
        every = round(_GROWTH_SHARE * task.num_spans / _NUM_GROWTHS)
        self._times = {every * number for number in range(1, _NUM_GROWTHS + 1)}
        self._widths = [layer.in_channels for layer in model._growable_layers]

    def after_span(self, score: Score) -> None:
        self.count_span()
        if self.num_spans in self._times:
            for index, width in enumerate(self._widths):
                self.search_flops += count_flops(lambda i=index, w=width: self._grow(i, w))
            self.model.train()
            self.has_changed(self.model.parameters())

    def _grow(self, index: int, width: int) -> None:
        """The package's eight calls for one layer."""
        train = EvalLoader(self.task.splits.train, self.task.batch_size)
        batches = [batch for _, batch in zip(range(_NUM_BATCHES), train, strict=False)]
        self.model.set_growing_layers(index=index)
        loss = nn.CrossEntropyLoss(reduction="sum")
        compute_statistics(self.model, batches, loss_function=loss)
        most = max(1, round(_ADDED_SHARE * width))
        self.model.compute_optimal_updates(
            maximum_added_neurons=most, compute_delta=False, use_projection=True
        )
        self.model.reset_computation()
        self.model.dummy_select_update()
        found = {scale: self._loss_at(scale) for scale in _SCALES}
        self.model.set_scaling_factor(min(found, key=lambda scale: found[scale]))
        self.model.apply_change()
        for layer in self.model.convolutions:
            _mend_shapes(layer)

    @torch.no_grad()
    def _loss_at(self, scale: float) -> float:
        """Loss on the validation split with what is on offer, at a scale."""
        self.model.eval()
        self.model.set_scaling_factor(scale)
        loader = EvalLoader(self.task.splits.val, self.task.batch_size)
        return sum(
            float(F.cross_entropy(self.model.extended_forward(x), y, reduction="sum"))
            for x, y in loader
        )


def _mend_shapes(layer: Any) -> None:
    """Release 0.1.0 leaves wrong shapes for the statistics of a convolution that has grown."""
    size = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]
    layer.tensor_m._shape = (size, layer.out_channels)
    layer.tensor_s._shape = (size, size)
