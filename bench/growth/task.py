"""A task: data in three splits, a host to grow, and how every arm trains on it."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kasmina import Site, count_flops, discover
from tolaria.data.loader import Batch, EvalLoader
from tolaria.data.splits import Examples, Splits

TRAINING: Final = "AdamW; 50 steps of warm-up, constant to 60 %, linearly down to 1 %"
"""How every arm is trained; raise it by hand when training.py changes what comes out."""

TUNING_RNG_SEED: Final = 99
"""On which every arm's learning rate is chosen; no result in a table comes from it."""

DIVERGED: Final = 1e6
"""Stands for a loss that is not finite, which JSON does not have."""

_EVAL_BATCH: Final = 100


class Planting(NamedTuple):
    """A blueprint at a site."""

    site: str
    blueprint: str


class Score(NamedTuple):
    """What a network does on a split."""

    loss: float
    metric: float
    """In the task's unit."""


@dataclass(frozen=True, eq=False)
class Task:
    """What is learnt, by which host, for how long. The same for every arm."""

    name: str
    splits: Splits
    host: Callable[[], nn.Module]
    widened: Callable[[int], nn.Module]
    """The host with another number of channels."""
    hand_picked: Callable[[int], nn.Module]
    """What somebody who knows the task would train, from an RNG seed."""
    num_spans: int
    """Spans that a run has; an arm that spends more FLOPs has more."""
    steps_per_span: int
    """Training steps from one validation to the next, where Esper may decide: an epoch, or an
    equal part of one."""
    batch_size: int
    learning_rates: tuple[float, ...]
    num_rng_seeds: int
    is_short: bool = False
    """Whether there is a longer one, on more data."""
    unit: str = "% right"
    higher_is_better: bool = True
    esper: dict[str, Any] = field(default_factory=dict)
    """Settings of Esper in which the task differs from the default."""
    data: str = ""
    """What the splits come from, in a few words or as a digest."""

    def settings(self) -> dict[str, Any]:
        """What a result depends on beside its arm, for the digest of a run."""
        sizes = [len(split) for split in (self.splits.train, self.splits.val, self.splits.test)]
        return {
            "training": TRAINING,
            "host": self.digest_of(self.host()),
            "data": self.data,
            "sizes": sizes,
            "batch_size": self.batch_size,
            "steps_per_span": self.steps_per_span,
        }

    @staticmethod
    def digest_of(model: nn.Module) -> str:
        """Of the modules of a network and their sizes."""
        return hashlib.sha256(repr(model).encode()).hexdigest()[:12]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross-entropy in nats over every label of a batch."""
        inputs, labels = batch
        return F.cross_entropy(model(inputs).flatten(0, -2), labels.flatten())

    @torch.no_grad()
    def score(self, model: nn.Module, examples: Examples) -> Score:
        """Evaluate, and leave the model in the mode that it was in."""
        was_training = model.training
        model.eval()
        num_labels, num_right, loss = 0, 0, 0.0
        for inputs, labels in EvalLoader(examples, _EVAL_BATCH):
            logits, labels = model(inputs).flatten(0, -2), labels.flatten()
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
            num_right += int((logits.argmax(1) == labels).sum())
            num_labels += len(labels)
        model.train(was_training)
        loss = loss / num_labels if math.isfinite(loss) else DIVERGED
        return Score(loss, self._metric(loss, num_right / num_labels))

    def _metric(self, loss: float, share_right: float) -> float:
        return 100 * share_right if self.higher_is_better else loss / math.log(2)

    def gain(self, metric: float, other: float) -> float:
        """By how much one metric is better than another, in the task's unit."""
        return metric - other if self.higher_is_better else other - metric

    def batch(self) -> Batch:
        """The first training examples, as many as a batch has."""
        train = self.splits.train
        return train.inputs[: self.batch_size], train.labels[: self.batch_size]

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Where the host can grow, as Esper sees it."""
        inputs, _ = self.batch()
        return tuple(discover(self.host(), (inputs,)))

    def step_flops(self, model: nn.Module) -> int:
        """FLOPs of one training step, forward and backward: matrix products and convolutions."""
        model = copy.deepcopy(model).train()
        return count_flops(lambda: self.loss(model, self.batch()).backward())

    def forward_flops(self, model: nn.Module) -> int:
        """FLOPs of a forward pass of one example."""
        inputs, _ = self.batch()
        model = copy.deepcopy(model).eval()
        with torch.no_grad():
            return count_flops(lambda: model(inputs)) // len(inputs)


def num_parameters(model: nn.Module) -> int:
    """Of all of a model, trained or not."""
    return sum(parameter.numel() for parameter in model.parameters())
