"""The lives of a seed: what grew at its place, from each germination to its end.

A place is used again after a cull or a cancelled trial, so one name can stand for several modules.
Lives are derived from everything known about the place, not from the order it became known in:
lanes of the bus overtake one another, and a watcher may join late.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from leyline import SeedReport, Stage
from leyline.lifecycle import WITHDRAWALS


class Gain(NamedTuple):
    """A measured drop in held-out loss and its standard error; NaN is "not measured"."""

    value: float = math.nan
    error: float = math.nan


NOT_MEASURED: Final = Gain()


class Reading(NamedTuple):
    """A gain that a decision or a field report stated for a blueprint at one epoch."""

    epoch: int
    blueprint: str
    gain: Gain


@dataclass(frozen=True)
class Mark:
    """What one state packet said about one seed, before that boundary's decision."""

    epoch: int
    stage: Stage
    site: str
    blueprint: str
    parameters: int
    alpha: float
    trial: Gain
    counterfactual: Gain
    embargo_epochs_left: int = 0


class Span(NamedTuple):
    """A stretch of epochs in one stage; the boundary after epoch n is at n."""

    stage: Stage
    start: int
    end: int


@dataclass
class SeedLife:
    """One blueprint at one place."""

    seed: str
    life: int = 1
    """Counts the lives of this seed's place from 1."""
    transitions: list[SeedReport] = field(default_factory=list)
    """The transitions that were made, oldest first."""
    marks: list[Mark] = field(default_factory=list)
    """What the packets said, by epoch: the history of stage and alpha."""
    trial: Gain = NOT_MEASURED
    counterfactual: Gain = NOT_MEASURED

    @property
    def _last(self) -> SeedReport | Mark:
        """The newest word on the seed; a packet is older than the transitions at its epoch."""
        if not self.transitions:
            return self.marks[-1]
        if self.marks and self.marks[-1].epoch > self.transitions[-1].epoch:
            return self.marks[-1]
        return self.transitions[-1]

    @property
    def site(self) -> str:
        """The submodule whose output it extends."""
        return self._last.site

    @property
    def blueprint(self) -> str:
        """The kind of module."""
        return self._last.blueprint

    @property
    def stage(self) -> Stage:
        """Where it is now; a life that has ended keeps the stage that ended it."""
        last = self._last
        return last.stage if isinstance(last, Mark) else Stage(last.now)

    @property
    def alpha(self) -> float:
        """Blend weight, 0 to 1."""
        return self._last.alpha

    @property
    def parameters(self) -> int:
        """Parameters of the module, also after it was removed."""
        said = [mark.parameters for mark in self.marks]
        return max(said + [report.parameters for report in self.transitions])

    @property
    def cause(self) -> str:
        """Why it made its last transition."""
        return self.transitions[-1].cause if self.transitions else ""

    @property
    def first_epoch(self) -> int:
        """The epoch of the first thing known about it."""
        first = [mark.epoch for mark in self.marks[:1]]
        return min(first + [report.epoch for report in self.transitions[:1]])

    @property
    def path(self) -> list[Stage]:
        """The stages it passed through; one life never goes back to a lower number."""
        seen = {mark.stage for mark in self.marks}
        for report in self.transitions:
            seen |= {Stage(report.was), Stage(report.now)}
        return sorted({Stage.DORMANT} | seen)

    @property
    def touched_host(self) -> bool:
        """It was blended into the live network, if only for a while."""
        return any(Stage.GRAFTING <= stage <= Stage.FOSSILIZED for stage in self.path)

    def epoch_of(self, stage: Stage) -> int | None:
        """The epoch at whose boundary it entered a stage, as far as known."""
        made = [report.epoch for report in self.transitions if report.now == stage]
        seen = [mark.epoch for mark in self.marks if mark.stage == stage]
        return made[0] if made else (seen[0] if seen else None)

    def spans(self, until: int) -> list[Span]:
        """Its stages as stretches of epochs, the last one reaching to the epoch `until`."""
        entered = [(stage, self.epoch_of(stage)) for stage in self.path]
        starts = [(stage, epoch) for stage, epoch in entered if stage and epoch is not None]
        ends = [epoch for _, epoch in starts[1:]] + [until]
        return [
            Span(stage, start, max(start, end))
            for (stage, start), end in zip(starts, ends, strict=True)
        ]

    def owns(self, epoch: int, blueprint: str, stage: Stage | None = None) -> bool:
        """Whether something said about this place at an epoch was said about this life."""
        if blueprint != self.blueprint:
            return False
        first, last = self.transitions[0], self.transitions[-1]
        if first.was == Stage.DORMANT and epoch <= first.epoch:
            fresh = stage in (None, Stage.GERMINATED, Stage.TRAINING)
            return epoch == first.epoch and fresh
        return last.now not in WITHDRAWALS or epoch <= last.epoch or stage in WITHDRAWALS

    def is_meant(self, epoch: int, blueprint: str) -> bool:
        """Whether a decision or report of that epoch on this place means this life."""
        if not self.transitions:
            return blueprint == self.blueprint
        return self.owns(epoch, blueprint)


@dataclass
class Place:
    """Everything heard about one seed's name."""

    seed: str
    reports: list[SeedReport] = field(default_factory=list)
    """Transitions that were made, by epoch."""
    marks: dict[int, Mark] = field(default_factory=dict)
    trials: list[Reading] = field(default_factory=list)
    counterfactuals: list[Reading] = field(default_factory=list)
    _lives: list[SeedLife] | None = None

    def changed(self) -> None:
        """Have the lives derived anew when they are next asked for."""
        self._lives = None

    def rewind(self, epoch: int) -> None:
        """Forget what happened after an epoch that the run was resumed from."""
        self.reports = [report for report in self.reports if report.epoch <= epoch]
        self.marks = {at: mark for at, mark in self.marks.items() if at <= epoch}
        self.trials = [reading for reading in self.trials if reading.epoch <= epoch]
        self.counterfactuals = [item for item in self.counterfactuals if item.epoch <= epoch]
        self.changed()

    def lives(self) -> list[SeedLife]:
        """The lives of this place, oldest first; none if it was never used."""
        if self._lives is None:
            self._lives = self._derive()
        return self._lives

    def _derive(self) -> list[SeedLife]:
        lives = _split(self.seed, self.reports)
        strays = []
        for mark in sorted(self.marks.values(), key=lambda mark: mark.epoch):
            owners = (
                life
                for life in reversed(lives)
                if life.owns(mark.epoch, mark.blueprint, mark.stage)
            )
            owner = next(owners, None)
            if owner is None:
                strays.append(mark)
            else:
                owner.marks.append(mark)
        lives = sorted([*lives, *_infer(self.seed, strays)], key=lambda life: life.first_epoch)
        for number, life in enumerate(lives, start=1):
            life.life = number
            measured = [mark.trial for mark in life.marks]
            life.trial = _newest(measured) or _newest(_stated(self.trials, life)) or NOT_MEASURED
            measured = [mark.counterfactual for mark in life.marks]
            stated = _stated(self.counterfactuals, life)
            life.counterfactual = _newest(measured) or _newest(stated) or NOT_MEASURED
        return lives


def _split(seed: str, reports: Iterable[SeedReport]) -> list[SeedLife]:
    """Cut a place's transitions into lives, at each germination."""
    lives: list[SeedLife] = []
    for report in reports:
        if report.now == Stage.DORMANT:
            continue  # the place is free again; the life ended before
        if report.was == Stage.DORMANT or not lives:
            lives.append(SeedLife(seed))
        lives[-1].transitions.append(report)
    return lives


def _infer(seed: str, marks: Iterable[Mark]) -> list[SeedLife]:
    """Lives known from packets alone: a lower stage or another blueprint is another life."""
    lives: list[SeedLife] = []
    for mark in marks:
        before = lives[-1].marks[-1] if lives else None
        if before is None or before.blueprint != mark.blueprint or before.stage > mark.stage:
            lives.append(SeedLife(seed))
        lives[-1].marks.append(mark)
    return lives


def _newest(gains: Iterable[Gain]) -> Gain | None:
    measured = [gain for gain in gains if not math.isnan(gain.value)]
    return measured[-1] if measured else None


def _stated(readings: Iterable[Reading], life: SeedLife) -> list[Gain]:
    """The readings about one life, oldest first."""
    mine = [reading for reading in readings if life.is_meant(reading.epoch, reading.blueprint)]
    return [reading.gain for reading in sorted(mine, key=lambda reading: reading.epoch)]
