"""The nursery: where seeds are before the host ever sees them, from germination to the graft."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from kasmina.compiled import nothing_compiled
from kasmina.guard import attempt, describe, proof_fault
from kasmina.rng import derive_rng_seed, isolated_rng
from kasmina.sites.site import Site
from kasmina.slots.birth import build_seed
from kasmina.slots.grafted_seed import GraftedSeed
from kasmina.trials.race import RaceRules, cut, cut_for_training, run_race
from kasmina.trials.race_report import RaceReport
from kasmina.trials.shadow import Shadow
from kasmina.trials.task import Task
from kasmina.trials.trial import OptimizerRecipe, Trial
from leyline import TrialError


class Nursery:
    """Builds, proves and tries seeds apart from the live model.

    A seed's birth is a pure function of the run's RNG seed, its own name, its blueprint and the
    epoch, so a resumed run builds the same one again and nothing of it need be saved.
    """

    def __init__(self, model: nn.Module, rng_seed: int):
        self._model = model
        self._rng_seed = rng_seed
        self._trials: dict[str, Trial] = {}
        self._unbuilt: dict[str, str] = {}
        self._retired: list[Trial] = []
        self.race_report: RaceReport | None = None
        """What the last race cost, and which of its work was shared; None once it is cleared."""

    def birth_rng_seed(self, seed: str, blueprint: str, epoch: int) -> int:
        """The RNG seed that a seed germinated at this epoch is built from."""
        return derive_rng_seed(self._rng_seed, "birth", seed, blueprint, epoch)

    def build(self, seed: str, site: Site, blueprint: str, epoch: int) -> GraftedSeed:
        """Build a seed's module at alpha 0; errors are those of `build_seed`."""
        return build_seed(
            self._model,
            site.name,
            seed=seed,
            blueprint=blueprint,
            shape=site.seed_shape,
            chunk=(int(seed.rpartition("/")[2]) % site.num_chunks, site.num_chunks),
            rng_seed=self.birth_rng_seed(seed, blueprint, epoch),
        )

    def proof_fault(self, seed: str, site: Site, blueprint: str, epoch: int) -> str | None:
        """Build a seed once and prove that it fits its site; None if it does, else why not."""
        module = attempt(lambda: self.build(seed, site, blueprint, epoch))
        if isinstance(module, Exception):
            return describe(module)
        like = next(module.body.parameters(), None)
        with isolated_rng(0):
            host = torch.randn(site.seed_shape)
            if like is not None:
                host = host.to(device=like.device, dtype=like.dtype)
            return proof_fault(module.body, host)

    def race(
        self,
        task: Task,
        entries: Mapping[str, tuple[Site, str, int]],
        train_batches: Sequence[Any],
        held_out: Sequence[Any],
        recipe: OptimizerRecipe,
        rules: RaceRules,
    ) -> int:
        """Run the trials of all seeds in TRAINING; results are read with `trial`.

        Args:
            entries: for each seed its site, blueprint and the epoch it germinated in.

        Returns:
            FLOPs spent.

        Raises:
            TrialError: the task's loss cannot be computed on a copy, with the reason.
        """
        if not train_batches or not held_out:
            missing = "training" if not train_batches else "held-out"
            raise TrialError(f"no trial: no {missing} batches were seen")
        shadow = Shadow(task)
        self.clear()
        for seed, (site, blueprint, epoch) in entries.items():
            module = attempt(partial(self.build, seed, site, blueprint, epoch))
            if isinstance(module, Exception):
                self._unbuilt[seed] = describe(module)
                continue
            optimizer = recipe.build(list(module.parameters()))
            rng_seed = self.birth_rng_seed(seed, blueprint, epoch)
            trial = Trial(seed, site.name, blueprint, module, optimizer, rng_seed)
            self._trials[seed] = trial
        pieces = cut(shadow, held_out)
        steps = cut_for_training(shadow, train_batches, rules)
        trials = list(self._trials.values())
        with nothing_compiled():
            report = attempt(lambda: run_race(shadow, trials, steps, pieces, recipe, rules))
        if isinstance(report, TrialError):
            raise report
        if isinstance(report, Exception):
            raise TrialError(f"no trial: the loss fails on a copy: {describe(report)}") from report
        self.race_report = report
        return report.flops

    def trial(self, seed: str) -> Trial | None:
        """The trial of a seed in the last race; None if it could not be built or was not there."""
        return self._trials.get(seed)

    def trial_fault(self, seed: str) -> str | None:
        """Why a seed has left the last race, or was never in it; None if it is sound."""
        trial = self._trials.get(seed)
        return self._unbuilt.get(seed) if trial is None else trial.fault

    def retire(self) -> None:
        """Know nothing of the last race any more; its weights are held until `clear`."""
        self._retired += self._trials.values()
        self._trials, self._unbuilt = {}, {}

    def clear(self) -> None:
        """Let go of every trial's weights: for many trials that takes milliseconds."""
        self._trials, self._unbuilt, self._retired = {}, {}, []
        self.race_report = None
