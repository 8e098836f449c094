"""The heuristic policy: races of trials say where and what, held-out gain says whether.

When: first after a tenth of the run, again once the last graft has settled, never in the last two
fifths. Where and what: every candidate that fits the parameter budget races, later those that
ranked best; the best gain after rent wins. Whether: the gain must exceed its noise, its rent and a
share of the first graft's gain. Stop: the window, the parameter budget, search's share of the FLOPs
or the cap is spent, or two races in a row had no winner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from leyline import Command, Decision, Germinate, Score, Stage
from tamiyo.early import Trend, why_early
from tamiyo.plantings import Openings, Planting, choose_plantings
from tamiyo.ranking import Ranking
from tamiyo.removals import Removals
from tamiyo.rules import HeuristicRules
from tamiyo.settling import settle, unsettled
from tamiyo.spending import Spending
from tamiyo.state import SeedRow, State
from tamiyo.timing import why_no_race
from tamiyo.verdict import judge


class HeuristicPolicy:
    """Grows by races of trials; a pure function of the state and what it has saved."""

    name = "heuristic"

    def __init__(self, rules: HeuristicRules | None = None):
        self._rules = rules if rules is not None else HeuristicRules()
        self._first_gain = 0.0
        self._misses = 0
        self._races = 0
        self._trend = Trend()
        self._ranking = Ranking()
        self._spending = Spending()
        self._removals = Removals()

    def decide(self, state: State) -> Decision:
        """Settle what is grafted, judge a finished race, and call the next one when it is time."""
        self._removals.note(state)
        if not self._races:
            self._trend.note(state, self._rules)
        commands = settle(state, self._rules, self._removals)
        finished = [r for r in state.in_stage(Stage.TRAINING) if r.epochs_in_stage >= 1]
        if finished and state.packet.trials_possible and not any(r.tried for r in finished):
            cause = "the race waits for the next validation pass"
            return self._decision(state, commands, cause, "it is judged after that")
        if finished:
            return self._judged(state, commands, finished)
        if unsettled(state, commands):
            cause = "grafted seeds are settling"
            return self._decision(state, commands, cause, "once they have, the next race")
        planted, cause, next_step = self._race(state)
        return self._decision(state, commands + planted, cause, next_step)

    def _judged(
        self, state: State, commands: list[Command], finished: Sequence[SeedRow]
    ) -> Decision:
        verdict = judge(state, finished, self._rules, self._first_gain)
        best = verdict.winner
        self._spending.judged(state, finished)
        self._ranking.judged(verdict.scores, verdict.failed)
        if best is None:
            self._misses += 1
            left = self._rules.max_misses - self._misses
            next_step = f"growth stops after {left} more" if left > 0 else "growth has stopped"
        else:
            self._misses = 0
            self._first_gain = self._first_gain or best.gain
            next_step = "alpha rises to 1, the host settles, the counterfactual is measured"
        moved = commands + verdict.commands
        return self._decision(state, moved, verdict.cause, next_step, verdict.scores)

    def _decision(
        self,
        state: State,
        commands: Sequence[Command],
        cause: str,
        next_step: str,
        scores: tuple[Score, ...] = (),
    ) -> Decision:
        return Decision(
            epoch=state.packet.epoch,
            policy=self.name,
            cause=cause,
            commands=tuple(commands),
            scores=scores,
            next_step=next_step,
        )

    # --- calling a race ----------------------------------------------------------------------

    def _race(self, state: State) -> tuple[list[Command], str, str]:
        """The race's germinations, why it is called or not, and what comes next."""
        rules = self._rules
        if self._misses >= rules.max_misses:
            return [], f"growth has stopped: {self._misses} races in a row had no winner", ""
        if not state.packet.trials_possible:
            return [], "no race: no trial is possible here", ""
        early = "" if self._races else why_early(state, self._trend.values, rules)
        reason = why_no_race(state, rules, early=bool(early))
        if reason:
            return [], reason, ""
        race = self._races + 1
        openings = Openings(state)
        plantings, num_resting = self._field(state, openings, race)
        if not plantings:
            return [], f"no candidate fits the {state.budget_left:,} parameters left", ""
        if why := self._spending.why_too_dear(state, plantings, race, rules):
            return [], why, ""
        self._spending.called(state)
        self._races = race
        commands: list[Command] = [
            Germinate(seed=p.seed, site=p.site, blueprint=p.blueprint, cause=f"race {race}")
            for p in plantings
        ]
        why = early or ("no graft is settling" if race > 1 else "warm-up is over")
        kinds = _counted(len({planting.blueprint for planting in plantings}), "kind")
        left = f"{state.budget_left:,} parameters left to add"
        cause = (
            f"{why}; race {race}, {kinds} of blueprint, {left}{_left_out(openings, num_resting)}"
        )
        return commands, cause, f"{_counted(len(plantings), 'candidate')} on trial, then a verdict"

    def _field(self, state: State, openings: Openings, race: int) -> tuple[list[Planting], int]:
        """Who races, and how many candidates that could do not, for others ranked better."""
        known, new = self._ranking.split(openings.pairs)
        at_most = self._rules.max_candidates
        narrow_to = min(at_most, self._rules.narrow_to)
        if not (known and narrow_to):
            return choose_plantings(openings, at_most=at_most, race=race), 0
        # Of so few that a quarter is nobody, those that were never tried come after a miss.
        at_least = max(narrow_to // 4, narrow_to - len(known), 1 if self._misses else 0)
        num_new = min(len(new), at_least)
        taken: set[str] = set()
        plantings: list[Planting] = []
        for pairs, number in ((known[: narrow_to - num_new], narrow_to - num_new), (new, num_new)):
            if number:
                some = Openings(state, set(pairs))
                plantings += choose_plantings(some, at_most=number, race=race, taken=taken)
        racing = {(planting.site, planting.blueprint) for planting in plantings}
        return plantings, len(known) + len(new) - len(racing)

    # --- resuming ----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The first graft's gain, races without a winner in a row, races called; the ranking; what
        a race cost; what was taken out how often, and the monitored metric until the first race.
        """
        return {
            "first_gain": self._first_gain,
            "misses": self._misses,
            "races": self._races,
            "ranking": self._ranking.saved(),
            "spending": self._spending.saved(),
            "removals": self._removals.saved(),
            "trend": list(self._trend.values),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; an old one has the first three entries alone."""
        self._first_gain = state["first_gain"]
        self._misses = state["misses"]
        self._races = state["races"]
        self._ranking.load(state.get("ranking", ()))
        self._spending.load(state.get("spending", {}))
        self._removals.load(state.get("removals", {"counts": (), "out": ()}))
        self._trend.values = list(state.get("trend", ()))


def _left_out(openings: Openings, num_resting: int) -> str:
    """Who does not race, and why, in a few words."""
    parts = {
        "too large": openings.num_too_large,
        "under embargo": openings.num_embargoed,
        "sitting out": num_resting,
    }
    said = ", ".join(f"{number} {why}" for why, number in parts.items() if number)
    return f" ({said})" if said else ""


def _counted(number: int, noun: str) -> str:
    """A number and what it counts, in the plural if need be."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
