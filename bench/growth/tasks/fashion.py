"""Fashion-MNIST with an ordinary small convolutional network."""

from __future__ import annotations

from torch import nn

from bench.growth.catalogue import planted
from bench.growth.task import Planting, Task
from tolaria.data.splits import Examples, Splits
from tolaria.data.splits import fashion as fashion_splits

_NUM_TRAIN_SHORT = 20_000
_NUM_VAL_SHORT = 4_000
_WIDTH = 8
_PARAM_BUDGET = 7_000
"""With the host two thirds of what the hand-picked net has."""
_HAND_PICKED = (Planting("1", "conv"), Planting("4", "conv"), Planting("7", "conv"))


def fashion(*, short: bool) -> Task:
    """The full set for 20 epochs; short, its first 20,000 images for 13, and the next 4,000 as val.

    Raises:
        ConfigError: its files are not on this machine.
    """
    splits = fashion_splits()
    task = Task(
        name="fashion",
        splits=_shortened(splits) if short else splits,
        host=lambda: _host(_WIDTH),
        widened=_host,
        hand_picked=lambda rng_seed: planted(task, _HAND_PICKED, rng_seed),
        num_spans=39 if short else 60,
        steps_per_span=52 if short else 143,  # a third of an epoch
        batch_size=128,
        learning_rates=(3e-3, 9e-3, 2e-2),
        num_rng_seeds=3,
        esper={"param_budget": _PARAM_BUDGET},
        is_short=short,
        data="Fashion-MNIST of Debian's dataset-fashion-mnist",
    )
    return task


def _shortened(splits: Splits) -> Splits:
    inputs, labels = splits.train.inputs, splits.train.labels
    end = _NUM_TRAIN_SHORT + _NUM_VAL_SHORT
    return Splits(
        Examples(inputs[:_NUM_TRAIN_SHORT], labels[:_NUM_TRAIN_SHORT]),
        Examples(inputs[_NUM_TRAIN_SHORT:end], labels[_NUM_TRAIN_SHORT:end]),
        splits.test,
    )


def _host(width: int) -> nn.Sequential:
    """Map (n, 1, 28, 28) to (n, 10)."""
    layers: list[nn.Module] = []
    for inner, outer in ((1, width), (width, 2 * width), (2 * width, 4 * width)):
        layers += [
            nn.Conv2d(inner, outer, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(outer),
            nn.ReLU(),
        ]
    last = nn.Linear(4 * width, 10)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)
