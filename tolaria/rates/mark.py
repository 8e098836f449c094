"""A mark: what optimizers and their schedulers were, to go back to within one boundary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch.optim import Optimizer

from tolaria.rates.groups import Group
from tolaria.rates.rules import SeedRate
from tolaria.rates.schedulers import lists_of, parts


class Mark:
    """Groups with their content, state, what the rule knows of seeds, and schedulers' lists.

    Weights and moments are not copied: between the mark and the return nothing trains.
    """

    def __init__(
        self,
        optimizers: Sequence[Optimizer],
        schedulers: Iterable[Any],
        seeds: Mapping[str, SeedRate],
    ):
        self._groups: list[tuple[Optimizer, list[tuple[Group, Group]]]] = [
            (optimizer, [(group, dict(group)) for group in optimizer.param_groups])
            for optimizer in optimizers
        ]
        self._states = [(optimizer, dict(optimizer.state)) for optimizer in optimizers]
        self._lists = [
            (part, lists_of(part)) for scheduler in schedulers for part in parts(scheduler)
        ]
        self._seeds = {name: replace(seed) for name, seed in seeds.items()}

    def go_back(self, seeds: dict[str, SeedRate]) -> None:
        """Undo every change since, that of `seeds` too."""
        for optimizer, groups in self._groups:
            for group, content in groups:
                group.clear()
                group.update(content)
            optimizer.param_groups[:] = [group for group, _ in groups]
        for optimizer, state in self._states:
            optimizer.state.clear()
            optimizer.state.update(state)
        for part, lists in self._lists:
            for name, values in lists.items():
                setattr(part, name, values)
        seeds.clear()
        seeds.update({name: replace(seed) for name, seed in self._seeds.items()})
