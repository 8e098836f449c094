"""The learning-rate controller: the one writer of seed groups, and the one that makes them.

Every grafted seed has a parameter group of its own, in the optimizer that owns its site. The
user's scheduler drives the host's groups; each seed group follows its host group by a factor.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from kasmina import LiveSeed, OptimizerRecipe
from leyline import ConfigError

SEED_KEY: Final = "esper_seed"
"""Key in a parameter group that holds its seed's name."""
_PER_GROUP_LISTS: Final = (
    "base_lrs",
    "_last_lr",
    "min_lrs",
    "lr_lambdas",
    "max_lrs",
    "base_momentums",
    "max_momentums",
)
_ADAMS: Final = (torch.optim.Adam, torch.optim.AdamW)
_DEFAULT_TRIAL_LEARNING_RATE: Final = 3e-3

Group = dict[str, Any]
TakeMoments = Callable[[str], Sequence[Mapping[str, Any]]]


class UnifiedLRController:
    """Keeps optimizers, schedulers and learning rates in step with the seeds of a model."""

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        schedulers: Sequence[Any] = (),
        *,
        seed_factor: float = 1.0,
    ):
        for optimizer in optimizers:
            if isinstance(optimizer, torch.optim.LBFGS):
                raise ConfigError(
                    "optimizer LBFGS takes one parameter group only, so it cannot grow; "
                    "use another optimizer, or policy='hold'"
                )
        self._model = model
        self.optimizers = list(optimizers)
        self._schedulers = list(schedulers)
        self._seed_factor = seed_factor
        self._followers: list[tuple[Group, Group]] = []

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
            for group in [
                g for g in optimizer.param_groups if g.get(SEED_KEY, "") not in ("", *live)
            ]:
                self._remove(optimizer, group)
        grouped = {g[SEED_KEY] for o in self.optimizers for g in o.param_groups if SEED_KEY in g}
        for name, seed in live.items():
            if name not in grouped and seed.parameters:
                optimizer, host_index = self._owner(seed.site)
                self._add(optimizer, host_index, name, seed)
                self._give_moments(optimizer, seed, take_moments(name))
        self._followers = [
            (group, optimizer.param_groups[group["esper_host_group"]])
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            if SEED_KEY in group
        ]
        self.follow()

    def follow(self) -> None:
        """Set every seed group's learning rate from its host group's; called after each step."""
        for group, host in self._followers:
            group["lr"] = host["lr"] * self._seed_factor

    def _add(self, optimizer: Optimizer, host_index: int, name: str, seed: LiveSeed) -> None:
        host = optimizer.param_groups[host_index]
        options = {k: v for k, v in host.items() if k not in ("params", "param_names")}
        parameters: list[Any] = list(seed.parameters)
        if "param_names" in host:
            parameters = [(f"{name}.{i}", p) for i, p in enumerate(parameters)]
        group = {**options, "params": parameters, SEED_KEY: name, "esper_host_group": host_index}
        optimizer.add_param_group(group)
        for scheduler in self._schedulers_of(optimizer):
            _extend(scheduler, len(optimizer.param_groups) - 1, host_index)

    def _give_moments(
        self, optimizer: Optimizer, seed: LiveSeed, moments: Sequence[Mapping[str, Any]]
    ) -> None:
        if not self._takes_moments(optimizer):
            return
        for parameter, state in zip(seed.parameters, moments, strict=False):
            if state:
                optimizer.state[parameter] = dict(state)

    def _takes_moments(self, optimizer: Optimizer) -> bool:
        """Only an Adam's moments are worth carrying; fused and capturable ones count elsewhere."""
        group = optimizer.param_groups[0]
        plain = not group.get("fused") and not group.get("capturable")
        return plain and type(optimizer) in _ADAMS and type(optimizer) is type(self.optimizers[0])

    def _remove(self, optimizer: Optimizer, group: Group) -> None:
        index = next(i for i, g in enumerate(optimizer.param_groups) if g is group)
        for parameter in group["params"]:
            optimizer.state.pop(parameter, None)
        del optimizer.param_groups[index]
        for scheduler in self._schedulers_of(optimizer):
            _shorten(scheduler, len(optimizer.param_groups) + 1, index)

    def _owner(self, site: str) -> tuple[Optimizer, int]:
        """The optimizer and group index that hold the site's own parameters, else the first."""
        own = {id(p) for p in self._model.get_submodule(site).parameters()}
        for optimizer in self.optimizers:
            for index, group in enumerate(optimizer.param_groups):
                if SEED_KEY not in group and any(id(p) in own for p in group["params"]):
                    return optimizer, index
        return self.optimizers[0], 0

    def _schedulers_of(self, optimizer: Optimizer) -> list[Any]:
        return [s for s in self._schedulers if getattr(s, "optimizer", None) is optimizer]

    def find_schedulers(self) -> None:
        """Look for schedulers of our optimizers that nobody told us of (a hand-written loop).

        Walks every object of the process: tens of milliseconds, so outside the boundary.
        """
        known = {id(scheduler) for scheduler in self._schedulers}
        ours = {id(optimizer) for optimizer in self.optimizers}
        inner = {id(s) for s in self._schedulers for s in getattr(s, "_schedulers", ())}
        for candidate in gc.get_objects():
            if (
                isinstance(candidate, LRScheduler)
                and id(candidate) not in known | inner
                and id(getattr(candidate, "optimizer", None)) in ours
            ):
                self._schedulers.append(candidate)
        inner = {id(i) for s in self._schedulers for i in getattr(s, "_schedulers", ())}
        self._schedulers = [s for s in self._schedulers if id(s) not in inner]

    # --- trials ------------------------------------------------------------------------------

    def recipe(self, learning_rate: float | None) -> OptimizerRecipe:
        """The optimizer of trials: the host's own kind if it is an Adam, else AdamW."""
        optimizer = self.optimizers[0]
        host = optimizer.param_groups[0]
        if type(optimizer) in _ADAMS:
            names = ("lr", "betas", "eps", "weight_decay", "amsgrad")
            options = {name: host[name] for name in names}
            factory: type[Optimizer] = type(optimizer)
        else:
            options = {"lr": _DEFAULT_TRIAL_LEARNING_RATE}
            factory = torch.optim.AdamW
        options["lr"] = float(learning_rate or options["lr"])
        return OptimizerRecipe(factory, options)

    # --- resuming ----------------------------------------------------------------------------

    def group_order(self) -> list[list[str]]:
        """For each optimizer the seeds of its groups, in order: optimizer state is positional."""
        return [
            [group[SEED_KEY] for group in optimizer.param_groups if SEED_KEY in group]
            for optimizer in self.optimizers
        ]

    def regroup(self, live: Mapping[str, LiveSeed], order: Sequence[Sequence[str]]) -> None:
        """Move seed parameters out of the host's groups into groups of their own, in saved order.

        For fresh optimizers that were built over a model that had been grown before.
        """
        ours = {id(p) for seed in live.values() for p in seed.parameters}
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                keep = [i for i, p in enumerate(group["params"]) if id(p) not in ours]
                group["params"] = [group["params"][i] for i in keep]
                if "param_names" in group:
                    group["param_names"] = [group["param_names"][i] for i in keep]
        wanted = {name: seed for names in order for name in names if (seed := live.get(name))}
        rest = {name: seed for name, seed in live.items() if name not in wanted}
        self.reconcile({**wanted, **rest}, lambda _: ())


def _extend(scheduler: Any, num_groups: int, host_index: int) -> None:
    """Give a scheduler's per-group lists one entry more, a copy of the host group's."""
    for name in _PER_GROUP_LISTS:
        values = getattr(scheduler, name, None)
        if isinstance(values, list) and len(values) == num_groups:
            values.append(values[host_index])
    for inner in getattr(scheduler, "_schedulers", ()):
        _extend(inner, num_groups, host_index)


def _shorten(scheduler: Any, num_groups: int, index: int) -> None:
    for name in _PER_GROUP_LISTS:
        values = getattr(scheduler, name, None)
        if isinstance(values, list) and len(values) == num_groups:
            del values[index]
    for inner in getattr(scheduler, "_schedulers", ()):
        _shorten(inner, num_groups, index)
