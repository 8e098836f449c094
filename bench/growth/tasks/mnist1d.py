"""MNIST-1D with a host that sees each value by itself, so that width cannot help it."""

from __future__ import annotations

import torch
from torch import nn

from bench.growth.catalogue import planted
from bench.growth.task import Planting, Task
from bench.growth.tasks.signals import NUM_STANDARD, STANDARD_RNG_SEED, signals
from tolaria.data.splits import Examples, Splits

_NUM_TRAIN = 4_000
_NUM_VAL = 1_000
_NUM_TEST = 10_000
_WIDTH = 16
_HAND_PICKED = (Planting("0", "conv_two_layers"), Planting("2", "conv_two_layers"))


def mnist1d(*, short: bool) -> Task:
    """The published 4,000 training signals; val and test are more of the same generator."""
    task = Task(
        name="mnist1d",
        splits=_splits(),
        host=lambda: _host(_WIDTH),
        widened=_host,
        hand_picked=lambda rng_seed: planted(task, _HAND_PICKED, rng_seed),
        num_spans=80,
        steps_per_span=20,  # half an epoch
        batch_size=100,
        learning_rates=(3e-3, 9e-3, 2e-2),
        num_rng_seeds=5,
        data="MNIST-1D, rng_seeds 42 and 43",
    )
    return task


def _splits() -> Splits:
    standard, labels = signals(NUM_STANDARD, STANDARD_RNG_SEED)
    more, more_labels = signals(_NUM_VAL + _NUM_TEST, STANDARD_RNG_SEED + 1)
    # All by the published set's own mean and deviation.
    mean, deviation = standard.mean(), standard.std()
    parts = [
        Examples(torch.from_numpy((x - mean) / deviation).float().unsqueeze(1), torch.from_numpy(y))
        for x, y in (
            (standard[:_NUM_TRAIN], labels[:_NUM_TRAIN]),
            (more[:_NUM_VAL], more_labels[:_NUM_VAL]),
            (more[_NUM_VAL:], more_labels[_NUM_VAL:]),
        )
    ]
    return Splits(*parts)


def _host(width: int) -> nn.Sequential:
    """Map (n, 1, 40) to (n, 10)."""
    return nn.Sequential(
        nn.Conv1d(1, width, 1),
        nn.ReLU(),
        nn.Conv1d(width, width, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(40 * width, 10),
    )
