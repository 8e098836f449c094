"""A loop whose seeds are moved as each boundary is told, and its twin to which nothing happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple

from leyline import Advance, Command, Cull, Decision, Germinate, Stage
from tamiyo import State
from tests.tolaria.plain_loops import Scripted, evaluate
from tests.tolaria.rollback.loops import NO_TRIALS, Loop
from tolaria import Orchestrator
from tolaria.resume.replay import Replay
from tolaria.rollback.watch import Watch

EMBARGO_EPOCHS: Final = 2
LANES: Final = (("conv", 0, "conv"), ("conv", 1, "low_rank"), ("head", 0, "low_rank"))
"""Site, first place and blueprint. Where a seed has become permanent the next place is used."""
SETTINGS: Final[dict[str, Any]] = {
    **NO_TRIALS,
    "sites": ("conv", "head"),
    "embargo_epochs": EMBARGO_EPOCHS,
    "num_epochs": 1000,
    "keep_checkpoints": 1000,
    "async_checkpoints": False,
    "resume": True,
}
Orders = tuple[str, ...]
"""For each lane whether its seed goes "on" to its next stage, "out", or is to "stay"."""


class Gardener(Scripted):
    """Moves every seed as it was told for this boundary; what is not allowed is refused."""

    def __init__(self) -> None:
        super().__init__(self._obey)
        self.orders: Orders = ()

    def _obey(self, state: State) -> Decision:
        stage_of = {row.seed: row.stage for row in state.rows}
        moves = [_move(*each, stage_of) for each in zip(LANES, self.orders, strict=True)]
        return Decision(
            epoch=state.packet.epoch,
            policy=self.name,
            cause="as told",
            commands=tuple(move for move in moves if move is not None),
        )


def _move(lane: tuple[str, int, str], order: str, stage_of: Mapping[str, Stage]) -> Command | None:
    site, first, blueprint = lane
    places = (f"{site}/{number}" for number in count(first, len(LANES)))
    seed = next(place for place in places if stage_of.get(place) is not Stage.FOSSILIZED)
    stage = stage_of.get(seed, Stage.DORMANT)
    if order == "out" and stage is not Stage.DORMANT:
        return Cull(seed=seed, cause="as told", embargo_epochs=1)
    if order != "on":
        return None
    if stage is Stage.DORMANT:
        return Germinate(seed=seed, site=site, blueprint=blueprint, cause="as told")
    return Advance(seed=seed, to=min(stage + 1, Stage.FOSSILIZED), cause="as told")


class GrownLoop(Loop):
    """The loop, grown by a Gardener."""

    def __init__(self, run_dir: Path, gardener: Gardener, **settings: Any):
        super().__init__("adamw", run_dir, **SETTINGS, **settings)
        self.gardener = gardener
        assert self.esper is not None
        self.run: Orchestrator = self.esper
        # Neither a slow boundary nor memory is to change anything here.
        self.run.replay(Replay(last_epoch=10**6))

    def boundary(self, orders: Orders, metrics: Mapping[str, float] | None = None) -> None:
        """End the epoch; the seeds are then moved as told, as if all had proved their worth."""
        table = self.run.executor.table
        for seed in table.in_stage(Stage.EVALUATING):
            table.put(seed, counterfactual_gain=1.0)
        self.gardener.orders = orders
        self.run.epoch_boundary(evaluate(self.model) if metrics is None else metrics)

    def calm_down(self) -> None:
        """Forget what went wrong: it would hold growth up for ten boundaries."""
        self.run.watch.load_state_dict(Watch(self.run.config).state_dict())


class Counts(NamedTuple):
    """What goes on counting when a run goes back, as far as anything depends on it."""

    epoch: int
    step: int
    steps_since_boundary: int
    ramp_steps: int

    @classmethod
    def of(cls, loop: GrownLoop) -> Counts:
        run = loop.run
        return cls(run.epoch, run.step, run.steps_since_boundary, run.executor.ramp_steps)


class Step(NamedTuple):
    """One step, on the batch of this number."""

    batch: int

    def done_in(self, twin: GrownLoop) -> None:
        twin.num_done = self.batch
        twin.step()


class Boundary(NamedTuple):
    """One epoch's end."""

    orders: Orders

    def done_in(self, twin: GrownLoop) -> None:
        twin.boundary(self.orders)


class Undone(NamedTuple):
    """All that a rollback leaves: these seeds are out, and the counts went on."""

    out: tuple[str, ...]
    counts: Counts

    def done_in(self, twin: GrownLoop) -> None:
        run, executor = twin.run, twin.run.executor
        for seed in self.out:
            executor.roll_back(seed, self.counts.epoch, "as the other", EMBARGO_EPOCHS)
        run.rates.reconcile(executor.live_seeds(), executor.take_moments)
        run.epoch, run.step, run.steps_since_boundary, executor.ramp_steps = self.counts
        twin.calm_down()


Trace = Sequence[Step | Boundary | Undone]
"""How a state came about, without what was undone."""


def twin_of(trace: Trace, run_dir: Path, gardener: Gardener) -> GrownLoop:
    """A run in which nothing of what was undone ever happened."""
    twin = GrownLoop(run_dir, gardener, checkpoint=False)
    for event in trace:
        event.done_in(twin)
    return twin
