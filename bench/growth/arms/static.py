"""Arms that train one network whose structure is known from the start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.growth import nets
from bench.growth.arms.arm import Finished, Settings
from bench.growth.nets import Net
from bench.growth.results import Result
from bench.growth.store import Job
from bench.growth.task import Task
from bench.growth.training import Course, train

ESPER = "esper"
"""The arm that the others are compared with, RNG seed by RNG seed."""


@dataclass(frozen=True)
class Static:
    """A fixed network, for the epochs that Esper has or for the FLOPs that Esper spends in all."""

    name: str
    about: str
    net: Callable[[Task, Result | None], Net]
    """From the task and, where `needs` is not empty, from what Esper has found."""
    equal_flops: bool = False
    from_grown: bool = False
    rates_of: str | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        return (ESPER,) if self.equal_flops or self.from_grown else ()

    def refusal(self, task: str) -> str | None:
        return None

    def settings(self, task: Task, rng_seed: int, finished: Finished) -> Settings | None:
        """The network and how long it is trained."""
        grown = finished(ESPER, rng_seed) if self.needs else None
        if self.needs and grown is None:
            return None
        net = self.net(task, grown)
        num_spans = task.num_spans
        if self.equal_flops and grown is not None:
            model = nets.build(task, net, rng_seed)
            of_a_span = task.steps_per_span * task.step_flops(model)
            num_spans = max(1, round(grown.flops / of_a_span))
        return {"net": dict(net), "num_spans": num_spans}

    def run(self, task: Task, job: Job) -> Result:
        """Train it."""
        chosen = job.settings
        course = Course(chosen["num_spans"], chosen["learning_rate"], job.rng_seed)
        return train(task, nets.build(task, chosen["net"], job.rng_seed), course)


def _found(grown: Result | None) -> Net:
    assert grown is not None
    assert grown.growing is not None
    return nets.of_plan(grown.growing.structure)


def _as_large(task: Task, grown: Result | None) -> Net:
    assert grown is not None
    return nets.widened(task, grown.num_parameters)


STATICS = (
    Static("host", "host alone", lambda task, grown: nets.HOST),
    Static(
        "host_flops", "host alone, equal FLOPs", lambda task, grown: nets.HOST, equal_flops=True
    ),
    Static("widened", "wider host, equal parameters", _as_large, from_grown=True),
    Static(
        "widened_flops", "wider host, equal FLOPs", _as_large, equal_flops=True, from_grown=True
    ),
    Static("hand", "hand-picked", lambda task, grown: nets.hand_picked(task)),
    Static(
        "hand_flops",
        "hand-picked, equal FLOPs",
        lambda task, grown: nets.hand_picked(task),
        equal_flops=True,
    ),
    Static(
        "found",
        "what Esper found, from scratch",
        lambda task, grown: _found(grown),
        from_grown=True,
    ),
    Static(
        "found_flops",
        "what Esper found, equal FLOPs",
        lambda task, grown: _found(grown),
        equal_flops=True,
        from_grown=True,
    ),
)
