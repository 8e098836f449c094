"""Learning-rate schedulers whose optimizer gains and loses parameter groups while they run."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

_PER_GROUP_LISTS: Final = (
    "base_lrs",
    "_last_lr",
    "min_lrs",
    "lr_lambdas",
    "max_lrs",
    "base_momentums",
    "max_momentums",
)
"""Attributes of torch's schedulers that have one entry for each parameter group."""


class Pair(NamedTuple):
    """The rates of a seed's group and of its host group at one time."""

    seed: float
    host: float


class Schedulers:
    """The schedulers of a run's optimizers, as far as they are known."""

    def __init__(self, optimizers: Sequence[Optimizer], known: Iterable[Any]):
        self._optimizers = optimizers
        self.known = list(known)
        self.may_look = True
        """Whether `rates` may look for unknown ones; it does so once, and then no more."""
        self._num_holders: list[int] = []

    def find(self) -> None:
        """Look for schedulers that a hand-written loop has made; takes tens of milliseconds."""
        self.known = find(self._optimizers, self.known)

    def notice(self) -> None:
        """Look for them only if more or fewer objects hold an optimizer than the last time.

        That one was made while something else let go of its optimizer is not noticed.
        """
        num_holders = [sys.getrefcount(optimizer) for optimizer in self._optimizers]
        if num_holders != self._num_holders:
            self._num_holders = num_holders
            self.find()

    def extend(self, optimizer: Optimizer, host_index: int) -> None:
        """Give the per-group lists one entry more, for a new last group: a copy of the host's."""
        for part in self._parts_of(optimizer):
            for values in _lists(part, len(optimizer.param_groups) - 1):
                values.append(values[host_index])

    def shorten(self, optimizer: Optimizer, index: int) -> None:
        """Take the entry of a group that is gone out of the per-group lists."""
        for part in self._parts_of(optimizer):
            for values in _lists(part, len(optimizer.param_groups) + 1):
                del values[index]

    def rates(self, optimizer: Optimizer, index: int, host_index: int) -> Iterable[Pair]:
        """What each gave a seed's group and its host's when it last stepped."""
        yield from self._known_rates(optimizer, index, host_index)
        if self.may_look:
            self.may_look = False
            self.find()
            yield from self._known_rates(optimizer, index, host_index)

    def _known_rates(self, optimizer: Optimizer, index: int, host_index: int) -> Iterable[Pair]:
        for part in self._parts_of(optimizer):
            last = getattr(part, "_last_lr", ())
            if len(last) == len(optimizer.param_groups):
                yield Pair(float(last[index]), float(last[host_index]))

    def _parts_of(self, optimizer: Optimizer) -> Iterable[Any]:
        for scheduler in self.known:
            if getattr(scheduler, "optimizer", None) is optimizer:
                yield from parts(scheduler)


def parts(scheduler: Any) -> Iterable[Any]:
    """A scheduler and those that it is made of."""
    yield scheduler
    for inner in getattr(scheduler, "_schedulers", ()):
        yield from parts(inner)


def lists_of(scheduler: Any) -> dict[str, list[Any]]:
    """Copies of the per-group lists of one scheduler, without those inside it."""
    held = ((name, getattr(scheduler, name, None)) for name in _PER_GROUP_LISTS)
    return {name: list(values) for name, values in held if isinstance(values, list)}


def find(optimizers: Sequence[Optimizer], known: Sequence[Any]) -> list[Any]:
    """The schedulers of these optimizers: those known and those that nobody told us of.

    Asks every object of the process whether it refers to an optimizer: about 20 ms for 300,000
    objects, so outside the boundary.
    """
    seen = {id(part) for scheduler in known for part in parts(scheduler)}
    new = {id(s): s for o in optimizers for s in _referrers(o) if id(s) not in seen}
    found = [*known, *new.values()]
    inner = {id(part) for outer in found for part in parts(outer) if part is not outer}
    return [scheduler for scheduler in found if id(scheduler) not in inner]


def _referrers(optimizer: Optimizer) -> Iterable[LRScheduler]:
    """The schedulers that have this optimizer."""
    # A scheduler whose __dict__ was ever asked for refers to its attributes through that only.
    namespaces = []
    for referrer in gc.get_referrers(optimizer):
        # By type: isinstance() asks dead weak proxies for a class, which raises.
        if issubclass(type(referrer), LRScheduler):
            yield referrer
        elif type(referrer) is dict and referrer.get("optimizer") is optimizer:
            namespaces.append(referrer)
    if namespaces:
        for owner in gc.get_referrers(*namespaces):
            if issubclass(type(owner), LRScheduler) and owner.optimizer is optimizer:
                yield owner


def _lists(scheduler: Any, num_groups: int) -> list[list[Any]]:
    """The per-group lists that still have the old length; some share one list."""
    held = (getattr(scheduler, name, None) for name in _PER_GROUP_LISTS)
    lists = {id(v): v for v in held if isinstance(v, list) and len(v) == num_groups}
    return list(lists.values())
