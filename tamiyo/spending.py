"""Spending: the share of a run's FLOPs that the search for modules may take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tamiyo.plantings import Planting
from tamiyo.state import SeedRow, State
from tamiyo.timing import Share

FREE_RACES: Final = 2
"""Races that are called whatever they cost: what the first one found may be a poor thing, which
leaves the network so cheap that no second race would ever be called."""


@dataclass(frozen=True, kw_only=True)
class SpendingRules:
    """What races may cost."""

    search_share: Share = 0.3
    """Share of the FLOPs of the whole run that races and counterfactuals may take; the first two
    races are always called. The steps to come are counted as if the dearest candidate of the next
    race won it, so that races without a winner may end some hundredths above; those of a run of
    unknown length are not counted: there the next race waits until training has caught up. 1: any.
    """


class Spending:
    """What races cost, from which the next one's cost is expected."""

    def __init__(self) -> None:
        self._before = 0
        self._of_a_step = 0.0
        """FLOPs of a step of a trial in the last race."""
        self._steps: list[int] = []
        """That its candidates were trained for, most first."""
        self._host_step = 0
        """FLOPs of a training step before the first race."""

    def called(self, state: State) -> None:
        """A race begins at this boundary."""
        self._before = state.packet.search_flops
        self._host_step = self._host_step or state.packet.step_flops

    def judged(self, state: State, finished: Sequence[SeedRow]) -> None:
        """It has been run, with these candidates."""
        self._steps = sorted((row.trial_steps for row in finished), reverse=True)
        spent = state.packet.search_flops - self._before
        self._of_a_step = spent / max(1, sum(self._steps))

    def share(self, state: State, plantings: Sequence[Planting]) -> float:
        """The share of the whole run's FLOPs that search will have taken after another race.

        As many of its candidates are taken to go as far as in the last race.

        Args:
            plantings: its candidates, at least one.
        """
        packet = state.packet
        known = [state.candidates[planting.site, planting.blueprint] for planting in plantings]
        added = self._host_step * max(candidate.step_cost for candidate in known)
        steps_left = packet.step / packet.epoch * max(0, packet.num_epochs - packet.epoch)
        training = packet.training_flops + (packet.step_flops + added) * steps_left
        steps = sum(self._steps[: len(plantings)])
        search = packet.search_flops + self._of_a_step * steps
        return search / (training + search or 1.0)

    def why_too_dear(
        self, state: State, plantings: Sequence[Planting], race: int, rules: SpendingRules
    ) -> str:
        """Why a race of these candidates is not called, in a line; empty if it may be.

        Args:
            race: its number, from 1.
        """
        if race <= FREE_RACES or rules.search_share >= 1.0 or not state.packet.step_flops:
            return ""
        share = self.share(state, plantings)
        if share <= rules.search_share:
            return ""
        allowed = f"{rules.search_share:.0%} may go there"
        return f"no race: with another, {share:.0%} of the run's FLOPs go into search; {allowed}"

    def saved(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "before": self._before,
            "of_a_step": self._of_a_step,
            "steps": list(self._steps),
            "host_step": self._host_step,
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Go on from saved values; without any from none."""
        self._before = saved.get("before", 0)
        self._of_a_step = saved.get("of_a_step", 0.0)
        self._steps = list(saved.get("steps", ()))
        self._host_step = saved.get("host_step", 0)
