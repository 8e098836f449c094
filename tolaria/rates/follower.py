"""The follower of one optimizer: the only code that writes a learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from tolaria.rates.foreign_writes import ForeignWrite, is_legitimate
from tolaria.rates.groups import HOST_KEY, SEED_KEY, Group
from tolaria.rates.rules import RateRule, SeedRate
from tolaria.rates.schedulers import Pair, Schedulers


class Follower:
    """Keeps the rates of an optimizer's seed groups at what the rule makes of their hosts' rates.

    Args:
        seeds: what the rule needs to know of each seed.
        schedulers: asked only when a rate is not the one that was left.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        rule: RateRule,
        seeds: Mapping[str, SeedRate],
        schedulers: Schedulers,
    ):
        self._optimizer = optimizer
        self._rule = rule
        self._seeds = seeds
        self._schedulers = schedulers
        self._groups: list[Group] = []
        """The very list of groups whose rates were left: loading a state replaces it."""
        self._left: list[Any] = []
        """The rate of every group as it was left; of a tensor a copy."""
        self._links: list[tuple[int, int, float]] = []
        """Of every seed: the index of its group, of its host's, and the multiple of that rate."""
        self._is_linked = False
        self._is_settled = False
        """Whether comparing with what was left tells if there is anything to do."""
        self._hook: Any = None
        self.foreign: dict[str, ForeignWrite] = {}
        """The last foreign write to each seed's rate since these were cleared."""

    def listen(self) -> None:
        """Follow before every step of the optimizer, as long as it has seed groups."""
        self.release()
        if any(SEED_KEY in group for group in self._optimizer.param_groups):
            self._hook = self._optimizer.register_step_pre_hook(lambda *_: self.follow())

    def release(self) -> None:
        """Follow only when asked to."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def forget(self) -> None:
        """Take the rates as they are now for nobody's write: groups or their state were changed."""
        self._groups = []
        self.unsettle()

    def unsettle(self) -> None:
        """Ask the rule again: what it makes of the host's rates has changed."""
        self._is_linked = self._is_settled = False

    def follow(self) -> None:
        """Set the rate of every seed group."""
        groups = self._optimizer.param_groups
        if not (self._is_settled and [group.get("lr") for group in groups] == self._left):
            self._write(groups, reads_tensors=False)

    def check(self) -> None:
        """Set the rates too, and compare those that are tensors: a GPU is waited for."""
        self._write(self._optimizer.param_groups, reads_tensors=True)

    def _write(self, groups: list[Group], *, reads_tensors: bool) -> None:
        is_known = groups is self._groups and len(groups) == len(self._left)
        if not (is_known and self._is_linked):
            self._link(groups)
        rates: list[Any] = [group.get("lr") for group in groups]
        for index, host_index, multiple in self._links:
            found, wanted = rates[index], rates[host_index] * multiple
            if is_known and (reads_tensors or not _is_tensor(found)) and found != self._left[index]:
                self._compare(groups, index, host_index, float(wanted))
            rates[index] = _set_rate(groups[index], wanted)
        self._is_settled = not any(map(_is_tensor, rates))
        self._left = rates if self._is_settled else [_kept(rate) for rate in rates]
        self._groups = groups

    def _link(self, groups: list[Group]) -> None:
        self._links = [
            (index, group[HOST_KEY], self._rule.multiplier(self._seeds[group[SEED_KEY]]))
            for index, group in enumerate(groups)
            if SEED_KEY in group
        ]
        self._is_linked = True

    def _compare(self, groups: list[Group], index: int, host_index: int, wanted: float) -> None:
        """Note a rate that is not the one left, unless a schedule explains it."""
        now = Pair(float(groups[index]["lr"]), float(groups[host_index]["lr"]))
        then = Pair(float(self._left[index]), float(self._left[host_index]))
        if is_legitimate(now, (then,)):
            return
        if not is_legitimate(now, self._schedulers.rates(self._optimizer, index, host_index)):
            seed = groups[index][SEED_KEY]
            self.foreign[seed] = ForeignWrite(seed, found=now.seed, expected=wanted)


def _set_rate(group: Group, wanted: Any) -> Any:
    """Set a group's rate; a tensor keeps its address, which compiled and captured steps read."""
    held = group["lr"]
    if _is_tensor(held) and _is_tensor(wanted):
        with torch.no_grad():
            return held.copy_(wanted)
    group["lr"] = wanted
    return wanted


def _is_tensor(rate: Any) -> bool:
    # Asked in every step, and a float is nearly always the answer: isinstance() takes longer.
    return type(rate) is not float and isinstance(rate, Tensor)


def _kept(rate: Any) -> Any:
    return rate.clone() if _is_tensor(rate) else rate
