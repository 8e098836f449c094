"""A trial: one candidate trained on the task's own loss in the shadow of the host."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer

from kasmina.guard import attempt, describe, fault_of
from kasmina.rng import derive_rng_seed, isolated_rng
from kasmina.slots.grafted_seed import GraftedSeed
from kasmina.trials.flops import FlopLedger
from kasmina.trials.shadow import HELD_OUT_RNG_SEED, Shadow, paired_gain, train_batch

_FUSED: Final = (Adam, AdamW, SGD, Adagrad)
"""Optimizers with one kernel for all parameters on the CPU."""


@dataclass(frozen=True)
class OptimizerRecipe:
    """How to build an optimizer for a seed that is not in the live model yet."""

    factory: type[Optimizer]
    options: Mapping[str, Any]

    def build(self, parameters: Sequence[nn.Parameter]) -> Optimizer:
        """An optimizer of the recipe's kind over these parameters, fused on the CPU if it can be.

        A seed is many small parameters, so a step is mostly the cost of the calls.
        """
        options = dict(self.options)
        is_plain = all(p.device.type == "cpu" and p.is_floating_point() for p in parameters)
        if self.factory in _FUSED and is_plain and not {"fused", "foreach"} & options.keys():
            options["fused"] = True
        return self.factory(parameters, **options)


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
    losses: Tensor | None = None
    """Held-out losses at the last measure, float64 [num_pieces]."""

    def train(
        self, shadow: Shadow, batches: Sequence[Any], num_steps: int, ledger: FlopLedger
    ) -> None:
        """Train through the whole host, up to `num_steps` in all, batch after batch."""
        outcome = attempt(lambda: self._train(shadow, batches, num_steps, ledger))
        self.look_for_fault(outcome)

    def look_for_fault(self, outcome: object = None) -> None:
        """Fail if the module has faulted, or if what was done with it raised."""
        # The module's own fault first: with the seed out, the backward pass fails in its wake.
        if self.module.fault is not None:
            self.fail(self.module.fault)
        elif isinstance(outcome, Exception):
            self.fail(describe(outcome))

    def fail(self, fault: str) -> None:
        """Note a fault; a gain of an earlier rung is worth nothing any more."""
        self.fault, self.gain, self.gain_error = fault, math.nan, math.nan

    def _train(
        self, shadow: Shadow, batches: Sequence[Any], num_steps: int, ledger: FlopLedger
    ) -> None:
        shadow.mode(training=True)
        shadow.restore_buffers()
        stream = derive_rng_seed(self.rng_seed, "trial", self.steps)
        with isolated_rng(stream), shadow.carrying(self.site, self.module):
            self.module.train()
            while self.steps < num_steps and self.module.fault is None:
                batch = batches[self.steps % len(batches)]
                step = partial(train_batch, shadow, batch, self.module, self.optimizer)
                ledger.run(("step", self.seed), step)
                self.steps += 1

    def measure(self, shadow: Shadow, held_out: Sequence[Any], before: Tensor) -> None:
        """Set the gain on held-out batches; a candidate that is not finite has faulted."""
        if self.fault is not None:
            return
        outcome = attempt(lambda: self._measure(shadow, held_out))
        self.look_for_fault(outcome)
        if not isinstance(outcome, Exception) and self.fault is None:
            self.settle(before, outcome)

    def settle(self, before: Tensor, after: Tensor) -> None:
        """Take the gain from the held-out losses without and with the seed, [num_pieces]."""
        self.losses = after
        if not bool(torch.isfinite(after).all()):
            self.fail("its held-out loss is not finite")
        else:
            self.gain, self.gain_error = paired_gain(before, after)

    def _measure(self, shadow: Shadow, held_out: Sequence[Any]) -> Tensor:
        # The stream that the losses without a seed had, so that a random loss is paired too.
        with isolated_rng(HELD_OUT_RNG_SEED), shadow.carrying(self.site, self.module):
            return shadow.held_out_losses(held_out)

    def moments(self) -> list[dict[str, Any]]:
        """The optimizer's state of each parameter, in the module's order, to go on with."""
        return [dict(self.optimizer.state.get(p, {})) for p in self.module.body.parameters()]

    def act(self, host: Tensor) -> Tensor:
        """Extend the site's output at alpha 1 in a shared pass, without the wall around a seed.

        The wall costs as much as a small body. Here it may go: whatever comes of a fault is tried
        again alone, where it stands. A chunk's seed and a body that is not trusted keep it.
        """
        module = self.module
        if type(module) is not GraftedSeed or module.shield is not None:
            grown: Tensor = module(host)
            return grown
        output = fault_of(module.body, host)
        if isinstance(output, str):
            module.fail(output)
            return host
        return host + output.to(host.dtype)

    def bookmark(self) -> Callable[[], None]:
        """Copy the module with its moments; calling what is returned goes back to the copy."""
        module, optimizer = copy.deepcopy((self.module, self.optimizer))
        steps = self.steps

        def go_back() -> None:
            self.module, self.optimizer, self.steps = module, optimizer, steps

        return go_back
