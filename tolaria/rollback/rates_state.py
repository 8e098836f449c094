"""The rates of a run at one moment: options of every parameter group, and every scheduler."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from leyline import RollbackError
from tolaria.rates.groups import SEED_KEY

if TYPE_CHECKING:
    from kasmina import Executor
    from tolaria.rates import UnifiedLRController

_NOT_OPTIONS = ("params", "param_names")


@dataclass(frozen=True)
class _Held:
    """One optimizer's groups without their parameters, and the state of its schedulers."""

    groups: list[dict[str, Any]]
    schedulers: list[tuple[Any, dict[str, Any]]]


class RatesState:
    """What drives the learning rates, as plain values that nothing later reaches."""

    def __init__(self, rates: UnifiedLRController):
        self._rates = rates
        self._seeds = copy.deepcopy(rates.state_dict())
        self._held = [self._hold(optimizer) for optimizer in rates.optimizers]

    def renew(self, number: int) -> None:
        """Take one optimizer's rates again: an epoch's scheduler has moved since.

        Args:
            number: the optimizer's place among the run's.
        """
        self._held[number] = self._hold(self._rates.optimizers[number])

    def restore(self, executor: Executor) -> None:
        """Put groups, rates and schedulers back; the model carries the seeds of that moment.

        A scheduler that was made since knows nothing of that moment: it goes on from where it is,
        and so do the host's groups that it drives.

        Raises:
            RollbackError: the user's own groups are not those of that moment; nothing of theirs
                was changed.
        """
        self._regroup(executor)
        for optimizer, held in zip(self._rates.optimizers, self._held, strict=True):
            known = [scheduler for scheduler, _ in held.schedulers]
            goes_on = any(s not in known for s in self._schedulers_of(optimizer))
            for group, options in zip(optimizer.param_groups, held.groups, strict=True):
                if SEED_KEY in group or not goes_on:
                    _set(group, options)
            for scheduler, state in () if goes_on else held.schedulers:
                scheduler.load_state_dict(copy.deepcopy(state))
        self._rates.load_state_dict(copy.deepcopy(self._seeds))

    def _regroup(self, executor: Executor) -> None:
        """Give the seeds the groups that they had, in the same order."""
        wanted = [[group.get(SEED_KEY) for group in held.groups] for held in self._held]
        if _places(self._rates.optimizers) != wanted:
            live = executor.live_seeds()
            named = [name for places in wanted for name in places if name is not None]
            self._rates.reconcile({}, lambda _: ())
            self._rates.reconcile({n: live[n] for n in named if n in live}, lambda _: ())
        found = _places(self._rates.optimizers)
        if found != wanted:
            raise RollbackError(
                f"the parameter groups are {found} and were {wanted} (None is one of your own): "
                "groups were added or removed since; add them before training, or at an epoch's end"
            )

    def _hold(self, optimizer: Optimizer) -> _Held:
        groups = [
            {k: _kept(v) for k, v in group.items() if k not in _NOT_OPTIONS}
            for group in optimizer.param_groups
        ]
        schedulers = self._schedulers_of(optimizer)
        return _Held(groups, [(s, copy.deepcopy(s.state_dict())) for s in schedulers])

    def _schedulers_of(self, optimizer: Optimizer) -> list[Any]:
        every = self._rates.schedulers
        return [s for s in every if getattr(s, "optimizer", None) is optimizer]


def _places(optimizers: list[Optimizer]) -> list[list[str | None]]:
    return [[group.get(SEED_KEY) for group in o.param_groups] for o in optimizers]


def _kept(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)


@torch.no_grad()
def _set(group: dict[str, Any], options: dict[str, Any]) -> None:
    """Set a group's options; a tensor keeps its address, which captured steps read."""
    for key, value in options.items():
        now = group.get(key)
        if isinstance(value, Tensor) and isinstance(now, Tensor):
            now.copy_(value)
        else:
            group[key] = _kept(value)
