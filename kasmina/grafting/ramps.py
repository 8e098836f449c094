"""Ramps: the alphas of all grafting seeds, moved on together after every training step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from kasmina.grafting.graft import Graft
from kasmina.grafting.host_watch import HostWatch
from kasmina.grafting.linear_ramps import LinearRamps
from kasmina.grafting.signals import NOTHING_KNOWN, Signals
from kasmina.grafting.strategies import GraftingRecipe
from kasmina.lifecycle.seed_table import SeedTable
from kasmina.slots.grafted_seed import GraftedSeed

Held = Mapping[str, tuple[nn.Module, GraftedSeed]]
"""Seeds of the live model by name, each with the module of the host that it hangs on."""


class Ramps:
    """A ramp for each seed in GRAFTING; writes alpha into the seed and into its row.

    Linear ramps move as columns; a seed that grafts by another strategy has a graft of its own.
    """

    def __init__(self, table: SeedTable):
        self._table = table
        self._linear = LinearRamps()
        self._grafts: dict[str, _Tended] = {}

    def __len__(self) -> int:
        return len(self._linear) + len(self._grafts)

    def begin(self, seed: str, num_steps: int, recipe: GraftingRecipe, host: nn.Module) -> None:
        """Start at alpha 0.

        Args:
            seed: its name.
            num_steps: training steps after which alpha is 1 if nothing disturbs it.
            recipe: how it grafts.
            host: the module that it hangs on.
        """
        self.end(seed)
        self._table.put(seed, alpha=0.0, error_count=0, grafting_strategy=recipe.number)
        if recipe.strategy == "linear":
            self._linear.begin(seed, self._table.row(seed), num_steps)
        else:
            self._grafts[seed] = _Tended(recipe, num_steps, HostWatch(host))

    def end(self, seed: str) -> None:
        """The seed has left GRAFTING, one way or another."""
        self._linear.end(seed)
        self._grafts.pop(seed, None)

    def step(self, held: Held, loss: float | None) -> dict[str, str]:
        """Move on by one training step.

        Args:
            held: those that do not graft may be among them.
            loss: the newest training loss that is known, if any.

        Returns:
            For each seed whose graft has failed in this step, why. Its alpha stays where it is
            then, and its error count is above 0.
        """
        failed: dict[str, str] = {}
        for seed, tended in self._grafts.items():
            if seed not in held:
                continue
            graft, was_sound = tended.graft, not tended.graft.fault
            graft.step(tended.signals(held[seed][0], loss))
            self._table.put(seed, alpha=graft.alpha)
            if graft.fault and was_sound:
                failed[seed] = graft.fault
                self._table.put(seed, error_count=max(1, graft.num_errors))
        if len(self._linear):
            self._linear.step(self._table.column("alpha"))
        alpha = self._table.column("alpha")
        for seed, (_, module) in held.items():
            if seed in self._linear or seed in self._grafts:
                module.blend(float(alpha[self._table.row(seed)]))
        return failed

    def state_dict(self) -> dict[str, Any]:
        """Where every ramp stands."""
        positions = {seed: self._linear.position(seed) for seed in self._linear}
        linear = {
            seed: {"steps_done": done, "num_steps": length}
            for seed, (done, length) in positions.items()
        }
        return {**linear, **{seed: tended.state_dict() for seed, tended in self._grafts.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from saved ramps; the table must hold the seeds."""
        self._linear, self._grafts = LinearRamps(), {}
        for seed, saved in state.items():
            if "strategy" in saved:
                self._grafts[seed] = _Tended.from_state(saved)
            else:
                row = self._table.row(seed)
                self._linear.begin(seed, row, saved["num_steps"], saved["steps_done"])


class _Tended:
    """A graft with what was needed to build it and what it needs to be told."""

    def __init__(self, recipe: GraftingRecipe, num_steps: int, watch: HostWatch):
        self._recipe = recipe
        self._num_steps = num_steps
        self._watch = watch
        self.graft = Graft(recipe.build(num_steps))

    def signals(self, host: nn.Module, loss: float | None) -> Signals:
        """What the strategy asks for; nothing else is measured."""
        asks_for = self.graft.asks_for
        if not asks_for:
            return NOTHING_KNOWN
        measured: dict[str, float] = {}
        if asks_for - {"loss"}:
            measured = self._watch.measure(host, asks_for)
        return Signals(loss if "loss" in asks_for else None, **measured)

    def state_dict(self) -> dict[str, Any]:
        """The recipe and how far it has come, as plain values and tensors."""
        return {
            "strategy": self._recipe.strategy,
            "options": dict(self._recipe.options),
            "num_steps": self._num_steps,
            "graft": self.graft.state_dict(),
            "watch": self._watch.state_dict(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> _Tended:
        """The graft that a `state_dict` describes, to go on with."""
        recipe = GraftingRecipe(state["strategy"], state["options"])
        tended = cls(recipe, state["num_steps"], HostWatch(None))
        tended.graft.load_state_dict(state["graft"])
        tended._watch.load_state_dict(state["watch"])
        return tended
