"""A trial: one candidate trained on the task's own loss in the shadow of the host."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from kasmina.guard import attempt, describe
from kasmina.rng import derive_rng_seed, isolated_rng
from kasmina.slots.grafted_seed import GraftedSeed
from kasmina.trials.flops import count_flops
from kasmina.trials.shadow import HELD_OUT_RNG_SEED, Shadow, paired_gain, train_batch


@dataclass(frozen=True)
class OptimizerRecipe:
    """How to build an optimizer for a seed that is not in the live model yet."""

    factory: type[Optimizer]
    options: Mapping[str, Any]

    def build(self, parameters: Sequence[nn.Parameter]) -> Optimizer:
        """An optimizer of the recipe's kind over these parameters."""
        return self.factory(parameters, **self.options)


@dataclass
class Trial:
    """One candidate on trial: what it is, how far it was trained, what it was found to bring."""

    seed: str
    site: str
    blueprint: str
    module: GraftedSeed
    optimizer: Optimizer
    rng_seed: int
    steps: int = 0
    gain: float = math.nan
    gain_error: float = math.nan
    fault: str | None = None
    step_flops: int = 0
    """FLOPs of one training step, counted at the first."""

    def train(self, shadow: Shadow, batches: Sequence[Any], num_steps: int) -> None:
        """Train up to `num_steps` in all, batch after batch in the order they were kept."""
        outcome = attempt(lambda: self._train(shadow, batches, num_steps))
        self._look_for_fault(outcome)

    def _look_for_fault(self, outcome: object) -> None:
        # The module's own fault first: with the seed out, the backward pass fails in its wake.
        if self.module.fault is not None:
            self._fail(self.module.fault)
        elif isinstance(outcome, Exception):
            self._fail(describe(outcome))

    def _fail(self, fault: str) -> None:
        """Note a fault; a gain of an earlier rung is worth nothing any more."""
        self.fault, self.gain, self.gain_error = fault, math.nan, math.nan

    def _train(self, shadow: Shadow, batches: Sequence[Any], num_steps: int) -> None:
        shadow.mode(training=True)
        shadow.restore_buffers()
        stream = derive_rng_seed(self.rng_seed, "trial", self.steps)
        with isolated_rng(stream), shadow.carrying(self.site, self.module):
            self.module.train()
            while self.steps < num_steps and self.module.fault is None:
                batch = batches[self.steps % len(batches)]
                step = partial(train_batch, shadow, batch, self.module, self.optimizer)
                if self.step_flops == 0:
                    self.step_flops = count_flops(step)
                else:
                    step()
                self.steps += 1

    def measure(self, shadow: Shadow, held_out: Sequence[Any], before: Tensor) -> None:
        """Set the gain on held-out batches; a candidate that is not finite has faulted."""
        if self.fault is not None:
            return
        outcome = attempt(lambda: self._measure(shadow, held_out))
        self._look_for_fault(outcome)
        if isinstance(outcome, Exception) or self.fault is not None:
            return
        if not bool(torch.isfinite(outcome).all()):
            self._fail("its held-out loss is not finite")
        else:
            self.gain, self.gain_error = paired_gain(before, outcome)

    def _measure(self, shadow: Shadow, held_out: Sequence[Any]) -> Tensor:
        # The stream that the losses without a seed had, so that a random loss is paired too.
        with isolated_rng(HELD_OUT_RNG_SEED), shadow.carrying(self.site, self.module):
            return shadow.held_out_losses(held_out)

    def moments(self) -> list[dict[str, Any]]:
        """The optimizer's state of each parameter, in the module's order, to go on with."""
        return [dict(self.optimizer.state.get(p, {})) for p in self.module.body.parameters()]
