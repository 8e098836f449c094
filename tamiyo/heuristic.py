"""The heuristic policy: races of trials say where and what, held-out gain says whether.

When: first after a tenth of the run, again once the last graft has settled, never in the last two
fifths. Where and what: every candidate that fits the parameter budget races; the best gain after
rent wins. Whether: the gain must exceed its noise, its rent and a share of the first graft's gain.
Stop: the window or the budget is spent, or two races in a row had no winner.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from leyline import Command, Decision, Germinate, Score, Stage
from tamiyo.plantings import choose_plantings
from tamiyo.rules import HeuristicRules
from tamiyo.settling import settle, unsettled
from tamiyo.state import State
from tamiyo.verdict import judge

_WARMUP_IF_UNKNOWN: Final = 2
"""Epochs before the first race of a run whose length is unknown."""
_EPOCHS_TO_GRAFT: Final = 2
"""From the call of a race to its winner at alpha 1: one for the trial, one for the graft."""


class HeuristicPolicy:
    """Grows by races of trials; a pure function of the state and its own three numbers."""

    name = "heuristic"

    def __init__(self, rules: HeuristicRules | None = None):
        self._rules = rules if rules is not None else HeuristicRules()
        self._first_gain = 0.0
        self._misses = 0
        self._races = 0

    def decide(self, state: State) -> Decision:
        """Settle what is grafted, judge a finished race, and call the next one when it is time."""
        commands = settle(state, self._rules.settling)
        scores: tuple[Score, ...] = ()
        cause = "grafted seeds are settling"
        finished = [r for r in state.in_stage(Stage.TRAINING) if r.epochs_in_stage >= 1]
        if finished and state.packet.trials_possible and not any(r.tried for r in finished):
            cause = "the race waits for the next validation pass"
        elif finished:
            verdict = judge(state, finished, self._rules, self._first_gain)
            commands += verdict.commands
            scores, cause = verdict.scores, verdict.cause
            if verdict.winner is None:
                self._misses += 1
            else:
                self._misses = 0
                self._first_gain = self._first_gain or verdict.winner.gain
        elif not unsettled(state, commands):
            planted, cause = self._race(state)
            commands += planted
        return Decision(
            epoch=state.packet.epoch,
            policy=self.name,
            cause=cause,
            commands=tuple(commands),
            scores=scores,
        )

    # --- calling a race ----------------------------------------------------------------------

    def _race(self, state: State) -> tuple[list[Command], str]:
        packet, rules = state.packet, self._rules
        if self._misses >= rules.max_misses:
            return [], f"growth has stopped: {self._misses} races in a row had no winner"
        if not packet.trials_possible:
            return [], "no race: no trial is possible here"
        warmup = _WARMUP_IF_UNKNOWN
        if packet.num_epochs:
            warmup = max(1, round(rules.warmup_fraction * packet.num_epochs))
        if packet.epoch < warmup:
            return [], f"warming up until epoch {warmup}"
        last = rules.window_fraction * packet.num_epochs - _EPOCHS_TO_GRAFT
        if packet.num_epochs and packet.epoch > last:
            return [], "the growth window has closed"
        if not state.schema.candidates:
            return [], "no race: no blueprint that may race fits a site that may grow"
        race, why = self._races + 1, "no graft is settling" if self._races else "warm-up is over"
        plantings = choose_plantings(state, at_most=rules.max_candidates, race=race)
        if not plantings:
            return [], f"no candidate fits the {state.budget_left:,} parameters left"
        self._races = race
        commands: list[Command] = [
            Germinate(seed=p.seed, site=p.site, blueprint=p.blueprint, cause=f"race {race}")
            for p in plantings
        ]
        num_kinds = len({planting.blueprint for planting in plantings})
        kinds = f"{num_kinds} {'kind' if num_kinds == 1 else 'kinds'} of blueprint"
        left = f"{state.budget_left:,} parameters left to add"
        return commands, f"{why}; race {race}, {kinds}, {left}"

    # --- resuming ----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The first graft's gain, races without a winner in a row, races called."""
        return {
            "first_gain": self._first_gain,
            "misses": self._misses,
            "races": self._races,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self._first_gain = state["first_gain"]
        self._misses = state["misses"]
        self._races = state["races"]
