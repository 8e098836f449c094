"""The random policy: a control that says what the choice by trials is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from leyline import Command, Decision, Germinate
from tamiyo.plantings import Openings, draw_planting
from tamiyo.removals import Removals
from tamiyo.settling import SettlingRules, settle, unsettled
from tamiyo.state import State
from tamiyo.timing import Count, TimingRules, why_no_race
from tamiyo.ungated import graft_tried


@dataclass(frozen=True, kw_only=True)
class RandomRules(SettlingRules, TimingRules):
    """When something is planted, from what it is drawn, and how it is judged."""

    rng_seed: Count = 0
    """What the draws follow from, with the number of the draw."""


class RandomPolicy:
    """Plants one random candidate at a random place whenever the heuristic might call a race.

    Its trial trains but does not gate; the counterfactual may still cull it. No race is lost, so
    it stops at the window, the budget or the cap alone.
    """

    name = "random"

    def __init__(self, rules: RandomRules | None = None):
        self._rules = rules if rules is not None else RandomRules()
        self._draws = 0
        self._removals = Removals()

    def decide(self, state: State) -> Decision:
        """Settle what is grafted, graft what has had its trial, and draw when it is time."""
        self._removals.note(state)
        commands = settle(state, self._rules, self._removals)
        commands += graft_tried(state, "drawn at random")
        next_step = "once it has settled, the next draw"
        if unsettled(state, commands):
            cause = "nothing is drawn while the last one settles"
        else:
            planted, cause = self._draw(state)
            commands += planted
            next_step = "a trial that does not gate, then the graft" if planted else ""
        return Decision(
            epoch=state.packet.epoch,
            policy=self.name,
            cause=cause,
            commands=tuple(commands),
            next_step=next_step,
        )

    def _draw(self, state: State) -> tuple[list[Command], str]:
        reason = why_no_race(state, self._rules)
        if reason:
            return [], reason
        openings = Openings(state)
        number = self._draws + 1
        draw = Random(f"{self._rules.rng_seed}/{number}")  # noqa: S311 - to be repeated
        planting = draw_planting(openings, draw)
        if planting is None:
            return [], f"no candidate fits the {state.budget_left:,} parameters left"
        self._draws = number
        cause = f"draw {number}, of {len(openings):,} places"
        return [Germinate(**planting._asdict(), cause=cause)], cause

    def state_dict(self) -> dict[str, Any]:
        """How often it has drawn, and what was taken out how often."""
        return {"draws": self._draws, "removals": self._removals.saved()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self._draws = state["draws"]
        self._removals.load(state["removals"])
