"""The story of a seed: what a run's events tell of one life, put together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import leyline
from leyline import Cull, Decision, Fault, FieldReport, Germinate, Score, SeedReport, Stage
from leyline.lifecycle import WITHDRAWALS
from tolaria.show.lives import SeedLife
from tolaria.show.view import RunView

_NUM_RIVALS: Final = 5
"""Candidates of its race that are shown beside a seed, the best ones."""


class Race(NamedTuple):
    """A race that has been judged, from one candidate's side."""

    decision: Decision
    """What judged it."""
    scores: tuple[Score, ...]
    """Of all its candidates, the best gain first; unmeasured ones last."""
    mine: Score

    @property
    def rank(self) -> int:
        """The candidate's place by gain, from 1."""
        return self.scores.index(self.mine) + 1

    @property
    def winners(self) -> list[Score]:
        """Whoever was chosen."""
        return [score for score in self.scores if score.chosen]

    @property
    def shown(self) -> list[Score]:
        """The best of the race, whoever was chosen, and the one whose story it is."""
        rest = [score for score in self.scores[_NUM_RIVALS:] if score.chosen or score is self.mine]
        return [*self.scores[:_NUM_RIVALS], *rest]

    @property
    def num_steps(self) -> int:
        """Trial steps of those who went farthest."""
        return max(score.steps for score in self.scores)


@dataclass(frozen=True)
class Story:
    """One life, with all that was said of it. What no event told is None or empty."""

    life: SeedLife
    host_parameters: int
    epoch: int
    """The last epoch of the run that is known."""
    site: leyline.SiteInfo | None
    flops: int | None
    """Forward FLOPs per example that its blueprint adds at its site."""
    step_cost: float
    """Work that it adds to a training step, as a share of the host's own; 0 if not known."""
    planted: Decision | None
    """What had it tried."""
    race: Race | None
    field_reports: tuple[FieldReport, ...]
    refusals: tuple[SeedReport, ...]
    faults: tuple[Fault, ...]
    embargo_until: int | None
    """The epoch at whose boundary its place is free again for its blueprint."""

    @property
    def grafted(self) -> int | None:
        """The epoch from whose boundary on alpha rises."""
        return self.life.epoch_of(Stage.GRAFTING)

    @property
    def alphas(self) -> dict[int, float]:
        """Alpha by epoch, from the graft until it first was 1."""
        if self.grafted is None:
            return {}
        known = {mark.epoch: mark.alpha for mark in self.life.marks if mark.epoch > self.grafted}
        full = min((epoch for epoch, alpha in known.items() if alpha >= 1.0), default=math.inf)
        rising = {epoch: alpha for epoch, alpha in sorted(known.items()) if epoch <= full}
        return {self.grafted: 0.0} | rising


def stories(view: RunView, seed: str) -> list[Story]:
    """The story of every life of a seed, oldest first; none if its place was never used."""
    return [story_of(view, life) for life in view.lives_of(seed)]


def story_of(view: RunView, life: SeedLife) -> Story:
    """The story of one life."""
    candidate = view.candidate(life.site, life.blueprint)
    seed = life.seed
    wheres = (f"seed {seed}", f"trial of {seed}", f"{life.blueprint} at {life.site}")
    ended = life.transitions[-1].epoch if life.transitions else view.epoch
    last = ended if life.stage in WITHDRAWALS else view.epoch
    return Story(
        life=life,
        host_parameters=view.host_parameters,
        epoch=view.epoch,
        site=view.site_info(life.site),
        flops=None if candidate is None else candidate.flops,
        step_cost=0.0 if candidate is None else candidate.step_cost,
        planted=_planted(view.decisions, life),
        race=_race(view.decisions, life),
        field_reports=tuple(
            report
            for report in view.field_reports
            if report.seed == seed and life.is_meant(report.epoch, report.blueprint)
        ),
        refusals=tuple(
            report
            for report in view.refusals
            if report.seed == seed and life.is_meant(report.epoch, report.blueprint)
        ),
        faults=tuple(
            fault
            for fault in view.faults
            if fault.where in wheres and life.first_epoch <= fault.epoch <= last
        ),
        embargo_until=_embargo_until(view.decisions, life),
    )


def ranked(scores: Sequence[Score]) -> tuple[Score, ...]:
    """Scores with the best gain first; those that were not measured come last."""
    return tuple(sorted(scores, key=lambda score: (math.isnan(score.gain), -score.gain)))


def _planted(decisions: Sequence[Decision], life: SeedLife) -> Decision | None:
    for decision in reversed(decisions):
        for command in decision.commands:
            if (
                isinstance(command, Germinate)
                and command.seed == life.seed
                and life.is_meant(decision.epoch, command.blueprint)
                and decision.epoch <= life.first_epoch
            ):
                return decision
    return None


def _race(decisions: Sequence[Decision], life: SeedLife) -> Race | None:
    for decision in reversed(decisions):
        for score in decision.scores:
            if score.seed == life.seed and life.is_meant(decision.epoch, score.blueprint):
                return Race(decision, ranked(decision.scores), score)
    return None


def _embargo_until(decisions: Sequence[Decision], life: SeedLife) -> int | None:
    """As the packets after the end counted it down, else as the cull asked for it."""
    if life.stage not in (Stage.CULLED, Stage.ROLLED_BACK):
        return None
    counted = [
        mark.epoch + mark.embargo_epochs_left
        for mark in life.marks
        if mark.stage in WITHDRAWALS and mark.embargo_epochs_left > 0
    ]
    asked = (
        [
            decision.epoch + command.embargo_epochs
            for decision in decisions
            for command in decision.commands
            if isinstance(command, Cull)
            and command.seed == life.seed
            and decision.epoch == life.transitions[-1].epoch
        ]
        if life.transitions
        else []
    )
    return next(iter([*counted, *asked]), None)
