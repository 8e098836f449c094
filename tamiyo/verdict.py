"""The verdict on a finished race: who is grafted, who is given up, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

import msgspec

from leyline import Advance, Command, Score, Stage
from tamiyo.rules import HeuristicRules
from tamiyo.state import SeedRow, State
from tamiyo.timing import grafts_left


class Verdict(NamedTuple):
    """What becomes of a race's candidates."""

    commands: list[Command]
    scores: tuple[Score, ...]
    winners: tuple[Score, ...]
    """The best first."""
    failed: tuple[str, ...]
    """Seeds whose trial failed."""
    cause: str

    @property
    def winner(self) -> Score | None:
        """The best of those that are grafted; None if none is."""
        return self.winners[0] if self.winners else None


def judge(
    state: State, finished: Sequence[SeedRow], rules: HeuristicRules, first_gain: float
) -> Verdict:
    """Graft the best candidates that pass, and cancel the others.

    Args:
        finished: the race's candidates, at least one.
        first_gain: gain of the run's first graft; 0 before it.
    """
    farthest = max(row.trial_steps for row in finished)
    # Bonferroni: the more candidates, the more the best of them has by chance alone.
    sure = NormalDist().inv_cdf(1.0 - rules.false_graft_rate / len(finished))
    asked = max(rules.min_gain, rules.first_gain_share * first_gain)
    if not math.isnan(state.packet.host_gain):
        asked = max(asked, rules.host_gain_share * state.packet.host_gain)
    scores = [_score(state, row, rules, sure, asked) for row in finished]
    flaws = {row.seed: _flaw(state, row, farthest) for row in finished}
    able = [score for score in scores if not flaws[score.seed]]
    winners, passed_over = _winners(state, able, rules)
    flaws |= passed_over
    if winners:
        outdone = any(score.gain > winners[0].gain for score in able)
        cause = "; ".join(_won(winner, len(scores), outdone) for winner in winners)
    else:
        cause = f"no graft: {_miss(state, able, passed_over, len(scores))}"
    cause += _host_alone(state)
    chosen = {winner.seed: winner for winner in winners}
    scores = [chosen.get(score.seed, score) for score in scores]
    commands = [_command(score, flaws[score.seed], len(scores)) for score in scores]
    failed = tuple(row.seed for row in finished if row.error_count)
    return Verdict(commands, tuple(scores), winners, failed, cause)


def _score(state: State, row: SeedRow, rules: HeuristicRules, sure: float, asked: float) -> Score:
    """One candidate with what it must exceed and what it is worth.

    Args:
        sure: standard errors that the gain must exceed.
        asked: gain that every candidate must exceed.
    """
    candidate = state.candidates.get((row.site, row.blueprint))
    step_cost = candidate.step_cost if candidate is not None else 0.0
    rent = rules.rent_per_host * row.parameters / max(1, state.packet.host_parameters)
    threshold, value = math.nan, math.nan
    if row.trial_error is not None:
        threshold = max(sure * row.trial_error, rent, asked)
    if row.trial_gain is not None:
        value = (row.trial_gain - rent) / (1.0 + step_cost) ** rules.cost_power
    return Score(
        seed=row.seed,
        site=row.site,
        blueprint=row.blueprint,
        parameters=row.parameters,
        gain=math.nan if row.trial_gain is None else row.trial_gain,
        gain_error=math.nan if row.trial_error is None else row.trial_error,
        threshold=threshold,
        steps=row.trial_steps,
        chosen=False,
        flops=candidate.flops if candidate is not None else 0,
        step_cost=step_cost,
        value=value,
    )


def _winners(
    state: State, able: Sequence[Score], rules: HeuristicRules
) -> tuple[tuple[Score, ...], dict[str, str]]:
    """The most valuable that pass, each at a site of its own, within budget and cap together.

    Returns:
        Them, and by seed why each of the others that pass is not among them.
    """
    passing = [score for score in able if score.gain > score.threshold]
    passing.sort(key=lambda score: -score.value)  # stable: of equals the first row
    places, left = grafts_left(state, rules), state.budget_left
    winners: list[Score] = []
    passed_over: dict[str, str] = {}
    for score in passing:
        if places is not None and len(winners) >= places:
            why = f"no more than {rules.max_grafts:,} grafts may stand"
        elif len(winners) >= rules.max_grafts_per_race:
            why = f"no more than {rules.max_grafts_per_race:,} of a race are grafted"
        elif any(_overlap(score.site, winner.site) for winner in winners):
            why = "a better one won at its site, or at one inside or around it"
        elif score.parameters > left:
            why = f"its {score.parameters:,} parameters exceed the {left:,} that are left then"
        else:
            winners.append(msgspec.structs.replace(score, chosen=True))
            left -= score.parameters
            continue
        passed_over[score.seed] = why
    return tuple(winners), passed_over


def _overlap(site: str, other: str) -> bool:
    """Whether two sites are one, or one is a module inside the other."""
    return f"{site}.".startswith(f"{other}.") or f"{other}.".startswith(f"{site}.")


def _flaw(state: State, row: SeedRow, farthest: int) -> str:
    """Why a candidate cannot win whatever its gain; empty if it can."""
    if row.error_count:
        return "its trial failed"
    if row.trial_gain is None or row.trial_error is None:
        return "its gain was not measured"
    if row.trial_steps < farthest:
        return f"it left after {row.trial_steps} of {farthest} steps"
    if row.parameters > state.budget_left:
        return f"its {row.parameters:,} parameters exceed the {state.budget_left:,} left"
    return ""


def _host_alone(state: State) -> str:
    """What the host would have gained anyway; empty where that was not measured."""
    gain, error = state.packet.host_gain, state.packet.host_gain_error
    if math.isnan(gain):
        return ""
    return f"; the host alone gained {gain:.4f} +- {error:.4f} in as many steps"


def _command(score: Score, flaw: str, num_finished: int) -> Command:
    if score.chosen:
        cause = f"won the race of {num_finished} with {_gain(score)}"
        return Advance(seed=score.seed, to=int(Stage.GRAFTING), cause=cause)
    cause = f"lost the race: {flaw}" if flaw else f"lost the race with {_gain(score)}"
    return Advance(seed=score.seed, to=int(Stage.CANCELLED), cause=cause)


def _won(winner: Score, num_finished: int, outdone: bool) -> str:
    rule = ", once rent for its costs is taken off," if outdone else ""
    won = f"won the race of {num_finished}{rule} with {_gain(winner)}"
    return f"{winner.blueprint} at {winner.site} {won} {_needed(winner)}"


def _miss(
    state: State, able: Sequence[Score], passed_over: Mapping[str, str], num_finished: int
) -> str:
    """Why a race had no winner."""
    if not state.packet.trials_possible:
        return "no trial is possible here"
    if not able:
        return f"none of {num_finished} candidates finished its trial and fits the budget"
    best = max(able, key=lambda score: score.gain)
    which = f"{best.blueprint} at {best.site}"
    but = f", but {passed_over[best.seed]}" if best.seed in passed_over else ""
    return f"the best of {num_finished}, {which}, has {_gain(best)} {_needed(best)}{but}"


def _gain(score: Score) -> str:
    return f"a held-out gain of {score.gain:.4f} +- {score.gain_error:.4f} in {score.steps} steps"


def _needed(score: Score) -> str:
    return f"against a threshold of {score.threshold:.4f}"
