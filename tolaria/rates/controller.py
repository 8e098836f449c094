"""The learning-rate controller: the one writer of seed groups, and the one that makes them.

Every grafted seed has a parameter group of its own, in the optimizer that owns its site. The
user's scheduler drives the host's groups; each seed group follows its host group by a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from torch import nn
from torch.optim import Optimizer

from kasmina import LiveSeed, OptimizerRecipe
from tolaria.rates import groups
from tolaria.rates.follower import Follower
from tolaria.rates.foreign_writes import ForeignWrite
from tolaria.rates.groups import SEED_KEY
from tolaria.rates.mark import Mark
from tolaria.rates.recipe import give_moments, takes_moments, trial_recipe
from tolaria.rates.rules import VARIANCE_TRANSFER, RateRule, SeedRate, norm_ratio
from tolaria.rates.schedulers import Schedulers

TakeMoments = Callable[[str], Sequence[Mapping[str, Any]]]

_SAME_RATE: Final = RateRule()


class UnifiedLRController:
    """Keeps optimizers, schedulers and learning rates in step with the seeds of a model."""

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        schedulers: Sequence[Any] = (),
        *,
        rule: RateRule = _SAME_RATE,
    ):
        self._model = model
        self.optimizers = list(optimizers)
        self._schedulers = Schedulers(self.optimizers, schedulers)
        self._rule = rule
        self._seeds: dict[str, SeedRate] = {}
        self._warming_up: list[SeedRate] = []
        self._followers = [
            Follower(o, rule, self._seeds, self._schedulers) for o in self.optimizers
        ]

    # --- groups follow seeds -----------------------------------------------------------------

    def reconcile(self, live: Mapping[str, LiveSeed], take_moments: TakeMoments) -> None:
        """Give every live seed its group and take away those of seeds that are gone.

        The optimizer's state of all other parameters is not touched; a removed seed leaves none.

        Args:
            live: the seeds in the model.
            take_moments: gives a new seed's optimizer state from its trial, one mapping per
                parameter, or nothing.
        """
        for optimizer in self.optimizers:
            for gone in [name for name in groups.seeds_of(optimizer) if name not in live]:
                self._schedulers.shorten(optimizer, groups.remove_group(optimizer, gone))
            groups.follow_options(optimizer)
        grouped = {name for o in self.optimizers for name in groups.seeds_of(o)}
        for name, seed in live.items():
            if name not in grouped and seed.parameters:
                self._add(name, seed, take_moments)
        self._learn(live)
        self._follow_from_now()

    def _add(self, name: str, seed: LiveSeed, take_moments: TakeMoments) -> None:
        optimizer, host_index = groups.owner_of(seed.site, self._model, self.optimizers)
        host = optimizer.param_groups[host_index]
        groups.add_group(optimizer, host_index, name, seed)
        self._schedulers.extend(optimizer, host_index)
        if takes_moments(optimizer, host, self.optimizers[0]):
            give_moments(optimizer, seed, take_moments(name))

    def _learn(self, live: Mapping[str, LiveSeed]) -> None:
        """Bring what the rule needs to know up to date."""
        for gone in self._seeds.keys() - live.keys():
            del self._seeds[gone]
        for name, seed in live.items():
            rate = self._seeds.setdefault(name, SeedRate(frozen=True))
            was_frozen, rate.frozen = rate.frozen, not seed.trainable
            if was_frozen and seed.trainable and self._rule.kind == VARIANCE_TRANSFER:
                rate.ratio = norm_ratio(seed.parameters, self._host_parameters(seed, live))

    def _host_parameters(self, seed: LiveSeed, live: Mapping[str, LiveSeed]) -> list[nn.Parameter]:
        """The parameters of a seed's site, without those of seeds in it."""
        ours = {id(p) for other in live.values() for p in other.parameters}
        return [p for p in self._model.get_submodule(seed.site).parameters() if id(p) not in ours]

    # --- rates follow rates ------------------------------------------------------------------

    def follow(self) -> None:
        """Set every seed group's learning rate from its host group's."""
        for follower in self._followers:
            follower.follow()

    def after_step(self) -> None:
        """Count a training step for the seeds that are warming up, and follow."""
        if self._warming_up:
            for seed in self._warming_up:
                seed.steps += 1
            self._unsettle()
        self.follow()

    def take_foreign_writes(self) -> list[ForeignWrite]:
        """The foreign writes since they were last taken; every rate is what it should be again.

        Reads rates that are tensors, so a GPU is waited for: once per boundary.
        """
        for follower in self._followers:
            follower.check()
        found = [write for follower in self._followers for write in follower.foreign.values()]
        for follower in self._followers:
            follower.foreign.clear()
        self._schedulers.may_look = True
        return found

    def learning_rates(self) -> tuple[tuple[float, ...], dict[str, float]]:
        """The rates of the host's groups, in order of optimizers and groups, and of every seed."""
        all_groups = [g for o in self.optimizers for g in o.param_groups if g.get("lr") is not None]
        host = tuple(float(g["lr"]) for g in all_groups if SEED_KEY not in g)
        return host, {g[SEED_KEY]: float(g["lr"]) for g in all_groups if SEED_KEY in g}

    def release(self) -> None:
        """Let go of the optimizers: seed groups stay, and follow no more."""
        for follower in self._followers:
            follower.release()

    def _follow_from_now(self) -> None:
        """Follow just before each step: a scheduler may have moved the seed's group by itself."""
        for follower in self._followers:
            follower.forget()
            follower.listen()
        self._unsettle()
        self.follow()

    def _unsettle(self) -> None:
        self._warming_up = [
            seed
            for seed in self._seeds.values()
            if self._rule.is_warming_up(seed) and not seed.frozen
        ]
        for follower in self._followers:
            follower.unsettle()

    @property
    def schedulers(self) -> list[Any]:
        """The outermost schedulers that are known."""
        return self._schedulers.known

    def find_schedulers(self) -> None:
        """Look for schedulers that a hand-written loop has made; takes tens of milliseconds."""
        self._schedulers.find()

    def notice_schedulers(self) -> None:
        """Look for new ones if there is a sign of any; costs nothing where there is none."""
        self._schedulers.notice()

    # --- a boundary that does not count -------------------------------------------------------

    def mark(self) -> Mark:
        """Remember groups, optimizer state, schedulers and rules, to go back to."""
        return Mark(self.optimizers, self.schedulers, self._seeds)

    def go_back(self, mark: Mark) -> None:
        """Undo every change of groups, optimizer state, schedulers and rules since the mark."""
        mark.go_back(self._seeds)
        self._follow_from_now()

    # --- trials ------------------------------------------------------------------------------

    def recipe(self, learning_rate: float | None) -> OptimizerRecipe:
        """The optimizer of trials: the host's own kind if it is an Adam, else AdamW."""
        return trial_recipe(self.optimizers[0], learning_rate)

    # --- resuming ----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """How far every seed is in its warm-up, and its ratio, by its name."""
        return {"seeds": {name: asdict(seed) for name, seed in self._seeds.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state of seeds that have their groups already."""
        self._seeds.update({name: SeedRate(**seed) for name, seed in state["seeds"].items()})
        self._follow_from_now()

    def group_order(self) -> list[list[str]]:
        """For each optimizer the seeds of its groups, in order: optimizer state is positional."""
        return [groups.seeds_of(optimizer) for optimizer in self.optimizers]

    def regroup(self, live: Mapping[str, LiveSeed], order: Sequence[Sequence[str]]) -> None:
        """Move seed parameters out of the host's groups into groups of their own, in saved order.

        For fresh optimizers that were built over a model that had been grown before.
        """
        for optimizer in self.optimizers:
            groups.take_out(optimizer, live)
        wanted = {name: seed for names in order for name in names if (seed := live.get(name))}
        rest = {name: seed for name, seed in live.items() if name not in wanted}
        self.reconcile({**wanted, **rest}, lambda _: ())
