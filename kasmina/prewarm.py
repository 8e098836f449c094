"""Prewarming: compile what a seed's life will need while training waits, not in its first step.

torch.compile makes one graph for each structure that it meets: the seed attached, awake, frozen,
each in training and in evaluation. A new instance of the same structure finds them again, whether
it hangs on the live model or on a copy; so a copy is run through that life beforehand. This
happens in the calling thread: compiling in another one while training traces crashes torch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from kasmina.compiled import compile_alike, compiled_modules
from kasmina.rng import isolated_rng
from kasmina.slots.grafted_seed import GraftedSeed
from kasmina.slots.slot import attach_seed, attached_seeds
from kasmina.trials.task import Task


def prewarm(model: nn.Module, task: Task, batch: Any, site: str, seed: GraftedSeed) -> None:
    """Run a seed's whole life on a copy of a compiled model.

    Args:
        model: the live model, for how its modules are compiled; it is not run.
        task: gives the copy and the loss.
        batch: one training batch, of the size that the run has.
        site: name of the module that the seed will hang on.
        seed: a throw-away instance, whose weights do not matter. Where the model carries a seed of
            its name already, the copy of that one is led through its life.

    Raises:
        TrialError: the task's loss cannot be computed on a copy.
    """
    copied = task.copy()
    for name, module in compiled_modules(model):
        compile_alike(copied.get_submodule(name), module)
    held = attached_seeds(copied).get(seed.seed)
    if held is None:
        attach_seed(site, copied.get_submodule(site), seed)
    else:
        seed = held.seed
    with isolated_rng(0):
        for alpha, trainable in ((0.0, True), (0.5, True), (1.0, False)):
            seed.blend(alpha)
            seed.requires_grad_(trainable)
            copied.train()
            with task.context():
                loss = task.loss(copied, batch)
            if loss.requires_grad:
                torch.autograd.backward(loss)
            copied.eval()
            with task.evaluation(), task.context():
                task.loss(copied, batch)
