"""What all peers need: the FLOPs of a network that changes, and an optimizer that keeps up."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.optim import Optimizer

from bench.growth.results import Growing
from bench.growth.task import Task


class Changing:
    """A network that changes between two spans; `grow` is what a peer does there."""

    unmeasured_s = (0.0, 0.0)

    def __init__(self, task: Task, model: nn.Module, optimizer: Optimizer) -> None:
        self.task = task
        self.model = model
        self.optimizer = optimizer
        self.num_spans = 0
        self._training_flops = 0
        self.search_flops = 0
        self._step_flops = task.step_flops(model)

    @property
    def flops(self) -> tuple[int, int]:
        return self._training_flops, self.search_flops

    def after_step(self, loss: Tensor) -> None:
        """Nothing: peers only look at ends of epochs."""

    def count_span(self) -> None:
        """Count the steps of a span that has ended."""
        self.num_spans += 1
        self._training_flops += self.task.steps_per_span * self._step_flops

    def has_changed(self, trained: Iterable[nn.Parameter]) -> None:
        """Let the optimizer begin anew with these, as both packages ask; its rate goes on."""
        self._step_flops = self.task.step_flops(self.model)
        self.optimizer.state.clear()
        self.optimizer.param_groups[0]["params"] = list(trained)

    def close(self) -> Growing | None:
        return None
