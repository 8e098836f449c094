"""What a run costs in FLOPs: its own steps, counted on a copy, and the trials beside it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch

from kasmina import Executor, Shadow, Task, count_flops, isolated_rng
from kasmina.guard import attempt, describe
from tolaria.growth.batch_source import BatchSource

_LOG = logging.getLogger("esper")


class FlopCount:
    """FLOPs of matrix products and convolutions; 0 where they cannot be counted."""

    def __init__(self, executor: Executor, task: Task, source: BatchSource):
        self._executor = executor
        self._task = task
        self._source = source
        self._counted: tuple[frozenset[str], int] | None = None
        self.training = 0
        """Of the live run so far."""
        self.trials = 0
        """Of all races so far."""
        self.counterfactuals = 0
        """Of all counterfactuals so far."""
        self.host_step = 0
        """Of one step before anything had grown."""

    @property
    def total(self) -> int:
        """All that the run has spent so far."""
        return self.training + self.trials + self.counterfactuals

    def by_use(self) -> dict[str, int]:
        """The same by use, "training", "races" and "counterfactuals"; empty if not counted."""
        if not self.training:
            return {}
        return {
            "training": self.training,
            "races": self.trials,
            "counterfactuals": self.counterfactuals,
        }

    def told(self) -> dict[str, int]:
        """What a state packet tells of it, by field."""
        return {
            "step_flops": self._counted[1] if self._counted else 0,
            "training_flops": self.training,
            "search_flops": self.trials + self.counterfactuals,
        }

    def add_steps(self, num_steps: int) -> None:
        """Count steps of the live model as it is."""
        of_one = self._of_a_step()
        self.training += num_steps * of_one
        self.host_step = self.host_step or of_one

    def _of_a_step(self) -> int:
        batch = self._source.example()
        structure = frozenset(self._executor.live_seeds())
        if batch is None or self._executor.trials_waived is not None:
            return 0
        if self._counted is None or self._counted[0] != structure:
            counted = attempt(lambda: self._count(batch))
            if isinstance(counted, Exception):
                _LOG.warning("FLOPs are not counted: %s", describe(counted))
                counted = 0
            self._counted = (structure, counted)
        return self._counted[1]

    def _count(self, batch: Any) -> int:
        shadow = Shadow(self._task)
        shadow.model.requires_grad_(True)
        shadow.mode(training=True)
        with isolated_rng(0):
            return count_flops(lambda: torch.autograd.backward(shadow.loss(batch)))

    def state_dict(self) -> dict[str, int]:
        """The sums, and the host's step."""
        return {
            "training": self.training,
            "trials": self.trials,
            "counterfactuals": self.counterfactuals,
            "host_step": self.host_step,
        }

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from saved sums."""
        self.training, self.trials = state["training"], state["trials"]
        self.counterfactuals = state.get("counterfactuals", 0)
        self.host_step = state["host_step"]
