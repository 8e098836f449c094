"""The heuristic policy: races of trials say where and what, held-out gain says whether.

When: first after a tenth of the run, again once the last graft has settled, never in the last two
fifths. Where and what: every candidate that fits the parameter budget races; the best gain after
rent wins. Whether: the gain must exceed its noise, its rent and a share of the first graft's gain.
Stop: the window or the budget is spent, or two races in a row had no winner.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

from leyline import Advance, Candidate, Command, Decision, Germinate, Score, Stage
from tamiyo.settling import SettlingRules, settle, unsettled
from tamiyo.state import SeedRow, State


@dataclass(frozen=True)
class HeuristicRules:
    """The thresholds of the heuristic policy. Gains are in the unit of the user's loss."""

    warmup_fraction: float = 0.1
    """Share of the run before the first race."""
    window_fraction: float = 0.6
    """Share of the run after which no race starts."""
    max_candidates: int = 32
    """Candidates in one race."""
    false_graft_rate: float = 0.01
    """Chance that a race without any useful candidate grafts one (Bonferroni over candidates)."""
    first_gain_share: float = 0.15
    """Share of the first graft's gain that every later one must exceed."""
    min_gain: float = 1e-3
    """Gain below which nothing is grafted."""
    rent_per_host: float = 0.005
    """Gain that a candidate as large as the whole host must bring at least."""
    max_misses: int = 2
    """Races in a row without a winner after which growth stops."""
    settling: SettlingRules = field(default_factory=SettlingRules)


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
        cause = ""
        finished = [r for r in state.in_stage(Stage.TRAINING) if r.epochs_in_stage >= 1]
        if finished:
            scores = self._scores(state, finished)
            judged, cause = self._judge(state, scores)
            commands += judged
        elif not unsettled(state, commands):
            planted, cause = self._race(state)
            commands += planted
        if not cause:
            cause = "grafted seeds are settling" if state.rows else "nothing to do"
        return Decision(
            epoch=state.packet.epoch,
            policy=self.name,
            cause=cause,
            commands=tuple(commands),
            scores=scores,
        )

    # --- judging a race ----------------------------------------------------------------------

    def _rent(self, state: State, parameters: int) -> float:
        return self._rules.rent_per_host * parameters / max(1, state.packet.host_parameters)

    def _scores(self, state: State, finished: list[SeedRow]) -> tuple[Score, ...]:
        sure = NormalDist().inv_cdf(1.0 - self._rules.false_graft_rate / len(finished))
        farthest = max(row.trial_steps for row in finished)
        scores = []
        for row in finished:
            error = row.trial_error if row.trial_error is not None else math.inf
            threshold = max(
                sure * error,
                self._rules.first_gain_share * self._first_gain,
                self._rules.min_gain,
                self._rent(state, row.parameters),
            )
            gain = row.trial_gain if row.trial_gain is not None else math.nan
            passed = row.trial_steps == farthest and row.error_count == 0 and gain > threshold
            scores.append((row, gain, error, threshold, passed))
        passing = [s for s in scores if s[4] and s[0].parameters <= state.budget_left]
        best = max(passing, key=lambda s: s[1] - self._rent(state, s[0].parameters), default=None)
        return tuple(
            Score(
                seed=row.seed,
                site=row.site,
                blueprint=row.blueprint,
                parameters=row.parameters,
                gain=gain,
                gain_error=error if math.isfinite(error) else math.nan,
                threshold=threshold if math.isfinite(threshold) else math.nan,
                steps=row.trial_steps,
                chosen=best is not None and row is best[0],
            )
            for row, gain, error, threshold, _ in scores
        )

    def _judge(self, state: State, scores: tuple[Score, ...]) -> tuple[list[Command], str]:
        winner = next((score for score in scores if score.chosen), None)
        commands: list[Command] = []
        for score in scores:
            if score.chosen:
                cause = f"won the race of {len(scores)} with {_gain(score)}"
                commands.append(Advance(seed=score.seed, to=int(Stage.GRAFTING), cause=cause))
            else:
                cause = f"lost the race with {_gain(score)}"
                commands.append(Advance(seed=score.seed, to=int(Stage.CANCELLED), cause=cause))
        if winner is not None:
            self._misses = 0
            self._first_gain = self._first_gain or winner.gain
            return commands, (
                f"graft {winner.blueprint} at {winner.site}: {_gain(winner)} against a threshold "
                f"of {winner.threshold:.4f}, best of {len(scores)}"
            )
        self._misses += 1
        if not state.packet.trials_possible:
            return commands, "no graft: no trial is possible here"
        measured = [score for score in scores if not math.isnan(score.gain)]
        if not measured:
            return commands, f"no graft: none of {len(scores)} candidates could be measured"
        best = max(measured, key=lambda score: score.gain)
        return commands, (
            f"no graft: the best of {len(scores)}, {best.blueprint} at {best.site}, has "
            f"{_gain(best)} against a threshold of {best.threshold:.4f}"
        )

    # --- calling a race ----------------------------------------------------------------------

    def _race(self, state: State) -> tuple[list[Command], str]:
        packet, rules = state.packet, self._rules
        if self._misses >= rules.max_misses:
            return [], f"growth has stopped: {self._misses} races in a row had no winner"
        if not packet.trials_possible:
            return [], "no race: no trial is possible here"
        warmup = (
            max(1, round(rules.warmup_fraction * packet.num_epochs)) if packet.num_epochs else 2
        )
        if packet.epoch < warmup:
            return [], f"warming up until epoch {warmup}"
        if packet.num_epochs and packet.epoch > rules.window_fraction * packet.num_epochs - 2:
            return [], "the growth window has closed"
        candidates = self._candidates(state)
        if not candidates:
            return [], f"no candidate fits the {state.budget_left:,} parameters left"
        self._races += 1
        cause = f"race {self._races}"
        taken: set[str] = set()
        commands: list[Command] = []
        for candidate in candidates:
            seed = state.free_places(candidate.site, taken)
            taken.add(seed)
            commands.append(
                Germinate(
                    seed=seed, site=candidate.site, blueprint=candidate.blueprint, cause=cause
                )
            )
        sites = len({candidate.site for candidate in candidates})
        kinds = len({candidate.blueprint for candidate in candidates})
        return commands, (
            f"race {self._races}: {len(candidates)} candidates of {kinds} kinds at {sites} sites, "
            f"{state.budget_left:,} parameters left to add"
        )

    def _candidates(self, state: State) -> list[Candidate]:
        embargoed = {
            (row.site, row.blueprint)
            for row in state.rows
            if row.stage in (Stage.CULLED, Stage.ROLLED_BACK) and row.embargo_epochs_left > 0
        }
        fitting = [
            candidate
            for candidate in state.schema.candidates
            if candidate.parameters <= state.budget_left
            and (candidate.site, candidate.blueprint) not in embargoed
        ]
        if len(fitting) <= self._rules.max_candidates:
            return fitting
        # Too many to try at once: an even stride, shifted from race to race, tries them in turn.
        stride = len(fitting) / self._rules.max_candidates
        shift = self._races % math.ceil(stride)
        picked = {int(i * stride + shift) % len(fitting) for i in range(self._rules.max_candidates)}
        return [fitting[i] for i in sorted(picked)]

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


def _gain(score: Score) -> str:
    if math.isnan(score.gain):
        return "no measured gain"
    return f"a held-out gain of {score.gain:.4f} +- {score.gain_error:.4f} in {score.steps} steps"
