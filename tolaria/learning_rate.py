"""The learning-rate controller: the one writer of seed groups, and the one that makes them.

Every grafted seed has a parameter group of its own, in the optimizer that owns its site. The
user's scheduler drives the host's groups; each seed group follows its host group by a factor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn
from torch.optim import Optimizer

from kasmina import LiveSeed, OptimizerRecipe
from leyline import ConfigError
from tolaria.schedulers import extend, find, lists_of, parts, shorten

SEED_KEY: Final = "esper_seed"
"""Key in a parameter group that holds its seed's name."""
_HOST_KEY: Final = "esper_host_group"
"""Key in a seed's group that holds the index of the host group it follows."""
_ADAMS: Final = (torch.optim.Adam, torch.optim.AdamW)
_DEFAULT_TRIAL_LEARNING_RATE: Final = 3e-3

_CANNOT_GROW: Final[dict[type[Optimizer], str]] = {
    torch.optim.LBFGS: "takes one parameter group only",
    torch.optim.SparseAdam: "takes sparse gradients only, and seeds have dense ones",
    **({torch.optim.Muon: "takes matrices only"} if hasattr(torch.optim, "Muon") else {}),
}

Group = dict[str, Any]
TakeMoments = Callable[[str], Sequence[Mapping[str, Any]]]


def refuse_unfit(optimizers: Sequence[Any]) -> None:
    """Refuse optimizers that no seed can join.

    Raises:
        ConfigError: one is no optimizer, or none of them can take a seed's parameters.
    """
    for optimizer in optimizers:
        if not isinstance(optimizer, Optimizer):
            raise ConfigError(
                f"optimizer is a {type(optimizer).__name__}; give the torch.optim.Optimizer that "
                "trains the model"
            )
    if all(_flaw(optimizer) for optimizer in optimizers):
        reasons = [f"{type(o).__name__} {_flaw(o)}" for o in optimizers] or ["there is none"]
        raise ConfigError(
            f"no optimizer can take a seed's parameters: {'; '.join(reasons)}; "
            "use another optimizer, or policy='hold'"
        )


def _flaw(optimizer: Optimizer) -> str:
    """Why no seed can join an optimizer; empty if one can."""
    kinds = (kind for kind in _CANNOT_GROW if isinstance(optimizer, kind))
    return next((_CANNOT_GROW[kind] for kind in kinds), "")


@dataclass(frozen=True)
class Mark:
    """What the optimizers and schedulers were: groups with their content, state, lists."""

    groups: list[list[tuple[Group, Group]]]
    states: list[dict[Any, Any]]
    lists: list[tuple[Any, dict[str, list[Any]]]]


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
        self._model = model
        self.optimizers = list(optimizers)
        self._schedulers = list(schedulers)
        self._seed_factor = seed_factor
        self._hooks: list[Any] = []

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
                group = optimizer.param_groups[host_index]
                if self._takes_moments(optimizer, group):
                    _give_moments(optimizer, seed, take_moments(name))
        self._follow_from_now()

    def follow(self) -> None:
        """Set every seed group's learning rate from its host group's."""
        for optimizer in self.optimizers:
            self._follow_in(optimizer)

    def _follow_in(self, optimizer: Optimizer) -> None:
        # Groups are looked up each time: loading an optimizer's state replaces them all.
        for group in optimizer.param_groups:
            if SEED_KEY in group:
                group["lr"] = optimizer.param_groups[group[_HOST_KEY]]["lr"] * self._seed_factor

    def release(self) -> None:
        """Let go of the optimizers: seed groups stay, and follow no more."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _follow_from_now(self) -> None:
        """Follow just before each step: a scheduler may have moved the seed's group by itself."""
        self.release()
        for optimizer in self.optimizers:
            if any(SEED_KEY in group for group in optimizer.param_groups):
                hook = optimizer.register_step_pre_hook(lambda ours, *_: self._follow_in(ours))
                self._hooks.append(hook)
        self.follow()

    def _add(self, optimizer: Optimizer, host_index: int, name: str, seed: LiveSeed) -> None:
        host = optimizer.param_groups[host_index]
        options = {k: v for k, v in host.items() if k not in ("params", "param_names")}
        parameters: list[Any] = list(seed.parameters)
        if "param_names" in host:
            parameters = [(f"{name}.{i}", p) for i, p in enumerate(parameters)]
        group = {**options, "params": parameters, SEED_KEY: name, _HOST_KEY: host_index}
        optimizer.add_param_group(group)
        for scheduler in self._schedulers_of(optimizer):
            extend(scheduler, len(optimizer.param_groups) - 1, host_index)

    def _takes_moments(self, optimizer: Optimizer, group: Group) -> bool:
        """Only an Adam's moments are worth carrying; fused and capturable ones count elsewhere."""
        first = self.optimizers[0]
        if type(optimizer) not in _ADAMS or type(optimizer) is not type(first):
            return False
        plain = not group.get("fused") and not group.get("capturable")
        return plain and group["amsgrad"] == first.param_groups[0]["amsgrad"]

    def _remove(self, optimizer: Optimizer, group: Group) -> None:
        index = next(i for i, g in enumerate(optimizer.param_groups) if g is group)
        for parameter in group["params"]:
            optimizer.state.pop(parameter, None)
        del optimizer.param_groups[index]
        for scheduler in self._schedulers_of(optimizer):
            shorten(scheduler, len(optimizer.param_groups) + 1, index)
        for other in optimizer.param_groups:
            if other.get(_HOST_KEY, -1) > index:
                other[_HOST_KEY] -= 1

    def _owner(self, site: str) -> tuple[Optimizer, int]:
        """The optimizer and group index that hold the site's own parameters, else the first."""
        own = {id(p) for p in self._model.get_submodule(site).parameters()}
        able = [optimizer for optimizer in self.optimizers if not _flaw(optimizer)]
        for optimizer in able:
            for index, group in enumerate(optimizer.param_groups):
                if SEED_KEY not in group and any(id(p) in own for p in group["params"]):
                    return optimizer, index
        return able[0], 0

    def _schedulers_of(self, optimizer: Optimizer) -> list[Any]:
        return [s for s in self._schedulers if getattr(s, "optimizer", None) is optimizer]

    def find_schedulers(self) -> None:
        """Look for schedulers that a hand-written loop has made; takes tens of milliseconds."""
        self._schedulers = find(self.optimizers, self._schedulers)

    # --- a boundary that does not count -------------------------------------------------------

    def mark(self) -> Mark:
        """Remember groups, state and schedulers, to go back to."""
        return Mark(
            groups=[[(group, dict(group)) for group in o.param_groups] for o in self.optimizers],
            states=[dict(optimizer.state) for optimizer in self.optimizers],
            lists=[
                (part, lists_of(part))
                for scheduler in self._schedulers
                for part in parts(scheduler)
            ],
        )

    def go_back(self, mark: Mark) -> None:
        """Undo every change of groups, state and schedulers since the mark."""
        for optimizer, groups, state in zip(self.optimizers, mark.groups, mark.states, strict=True):
            for group, content in groups:
                group.clear()
                group.update(content)
            optimizer.param_groups[:] = [group for group, _ in groups]
            optimizer.state.clear()
            optimizer.state.update(state)
        for part, lists in mark.lists:
            for name, values in lists.items():
                setattr(part, name, values)
        self._follow_from_now()

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


def _give_moments(
    optimizer: Optimizer, seed: LiveSeed, moments: Sequence[Mapping[str, Any]]
) -> None:
    for parameter, state in zip(seed.parameters, moments, strict=False):
        if state:
            optimizer.state[parameter] = dict(state)
