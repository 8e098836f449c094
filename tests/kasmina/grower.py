"""An executor with its model, led through the stages as Tolaria and Tamiyo would lead it."""

from __future__ import annotations

import math
from typing import Any

import torch

from kasmina import Executor, FunctionTask, OptimizerRecipe, RaceRules, discover
from kasmina.slots.slot import attached_seeds
from leyline import Advance, Command, Cull, Decision, Germinate, SeedReport, Stage
from tests.kasmina.growing import Xor, bits, cross_entropy, everything, xor_batches

TRAIN, HELD_OUT = xor_batches(4, rng_seed=1), xor_batches(2, rng_seed=2)
X = TRAIN[0][0]
SEED = "body/0"
RAMP_STEPS = 4


class Grower:
    """An executor with its model, and shortcuts for what Tolaria and Tamiyo would do."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = Xor()
        self.task = FunctionTask(self.model, cross_entropy)
        self.executor = Executor(self.model, rng_seed=1, ramp_steps=RAMP_STEPS)
        self.executor.grounds.open(discover(self.model, (X,)))
        self.epoch = 0

    @property
    def table(self) -> Any:
        return self.executor.table

    def stage(self, seed: str = SEED) -> Stage:
        return self.table.stage(seed)

    def apply(self, *commands: Command) -> list[SeedReport]:
        decision = Decision(epoch=self.epoch, policy="test", cause="test", commands=commands)
        return self.executor.apply(decision, self.epoch)

    def end_epoch(self) -> None:
        self.epoch += 1
        self.table.end_epoch()

    def race(self, recipe: OptimizerRecipe | None = None) -> int:
        recipe = recipe or OptimizerRecipe(torch.optim.AdamW, {"lr": 0.02})
        return self.executor.race(self.task, TRAIN, HELD_OUT, recipe, RaceRules((3, 10), 2))

    def to(self, stage: Stage, seed: str = SEED, blueprint: str = "bottleneck_mlp") -> None:
        """Lead a dormant seed up to a stage by the ordinary way."""
        path = [
            lambda: self.apply(germinate(seed, blueprint)),
            lambda: self.executor.prove(self.epoch),
            lambda: (self.race(), self.apply(advance(Stage.GRAFTING, seed))),
            lambda: (self.ramp(), self.apply(advance(Stage.STABILIZATION, seed))),
            lambda: self.apply(advance(Stage.EVALUATING, seed)),
            lambda: (
                self.executor.measure_counterfactuals(self.task, HELD_OUT),
                self.apply(advance(Stage.FINE_TUNING, seed)),
            ),
            lambda: self.apply(advance(Stage.FOSSILIZED, seed)),
        ]
        for step in path:
            if seed in self.table and self.stage(seed) is stage:
                return
            step()
            self.end_epoch()
        assert self.stage(seed) is stage

    def ramp(self) -> list[float]:
        alphas = []
        for _ in range(RAMP_STEPS):
            self.executor.after_step()
            alphas.append(self.table.get(SEED, "alpha") if SEED in self.table else math.nan)
        return alphas

    def held(self, seed: str = SEED) -> Any:
        return attached_seeds(self.model)[seed][2]

    def picture(self) -> Any:
        """All that a refused command could have changed."""
        state = self.executor.state_dict()
        table = state.pop("table")
        columns = {name: bits(column) for name, column in table.pop("columns").items()}
        tensors = {k: v.tolist() for k, v in table.items() if k != "names"}
        return state, table["names"], columns, tensors, everything(self.model)


def germinate(seed: str = SEED, blueprint: str = "bottleneck_mlp", site: str = "") -> Germinate:
    site = site or seed.rpartition("/")[0]
    return Germinate(seed=seed, site=site, blueprint=blueprint, cause="test")


def advance(to: int, seed: str = SEED) -> Advance:
    return Advance(seed=seed, to=int(to), cause="test")


def cull(seed: str = SEED, epochs: int = 2) -> Cull:
    return Cull(seed=seed, cause="test", embargo_epochs=epochs)
