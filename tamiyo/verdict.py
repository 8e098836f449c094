"""The verdict on a finished race: who is grafted, who is given up, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import msgspec

from leyline import Advance, Command, Score, Stage
from tamiyo.rules import HeuristicRules
from tamiyo.state import SeedRow, State


class Verdict(NamedTuple):
    """What becomes of a race's candidates."""

    commands: list[Command]
    scores: tuple[Score, ...]
    winner: Score | None
    cause: str


def judge(
    state: State, finished: Sequence[SeedRow], rules: HeuristicRules, first_gain: float
) -> Verdict:
    """Graft the best candidate if one passes, and cancel the others.

    Args:
        finished: the race's candidates, at least one.
        first_gain: gain of the run's first graft; 0 before it.
    """
    farthest = max(row.trial_steps for row in finished)
    # Bonferroni: the more candidates, the more the best of them has by chance alone.
    sure = NormalDist().inv_cdf(1.0 - rules.false_graft_rate / len(finished))
    asked = max(rules.min_gain, rules.first_gain_share * first_gain)

    def rent(parameters: int) -> float:
        return rules.rent_per_host * parameters / max(1, state.packet.host_parameters)

    scores, flaws = [], {}
    for row in finished:
        threshold = math.nan
        if row.trial_error is not None:
            threshold = max(sure * row.trial_error, rent(row.parameters), asked)
        scores.append(_score(row, threshold))
        flaws[row.seed] = _flaw(state, row, farthest)
    able = [score for score in scores if not flaws[score.seed]]
    winner = max(
        (score for score in able if score.gain > score.threshold),
        key=lambda score: score.gain - rent(score.parameters),
        default=None,
    )
    if winner is not None:
        place = scores.index(winner)
        winner = scores[place] = msgspec.structs.replace(winner, chosen=True)
        outdone = any(score.gain > winner.gain for score in able)
        rule = ", once rent for parameters is taken off," if outdone else ""
        won = f"won the race of {len(scores)}{rule} with {_gain(winner)}"
        cause = f"{winner.blueprint} at {winner.site} {won} {_needed(winner)}"
    else:
        cause = f"no graft: {_miss(state, able, len(scores))}"
    commands = [_command(score, flaws[score.seed], len(scores)) for score in scores]
    return Verdict(commands, tuple(scores), winner, cause)


def _score(row: SeedRow, threshold: float) -> Score:
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
    )


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


def _command(score: Score, flaw: str, num_finished: int) -> Command:
    if score.chosen:
        cause = f"won the race of {num_finished} with {_gain(score)}"
        return Advance(seed=score.seed, to=int(Stage.GRAFTING), cause=cause)
    cause = f"lost the race: {flaw}" if flaw else f"lost the race with {_gain(score)}"
    return Advance(seed=score.seed, to=int(Stage.CANCELLED), cause=cause)


def _miss(state: State, able: Sequence[Score], num_finished: int) -> str:
    """Why a race had no winner."""
    if not state.packet.trials_possible:
        return "no trial is possible here"
    if not able:
        return f"none of {num_finished} candidates finished its trial and fits the budget"
    best = max(able, key=lambda score: score.gain)
    which = f"{best.blueprint} at {best.site}"
    return f"the best of {num_finished}, {which}, has {_gain(best)} {_needed(best)}"


def _gain(score: Score) -> str:
    return f"a held-out gain of {score.gain:.4f} +- {score.gain_error:.4f} in {score.steps} steps"


def _needed(score: Score) -> str:
    return f"against a threshold of {score.threshold:.4f}"
