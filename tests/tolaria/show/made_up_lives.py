"""Made-up but legal lives of one place, as events, with the facts that each of them holds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

import leyline
from leyline import LIFECYCLE, Stage
from tests.tolaria.show.events import BLUEPRINTS, NAMES, NUM_EPOCHS, schema, started
from tolaria.show.lives import Gain
from tolaria.show.phrases import counted, figure, gain_words

SEED = NAMES[0]
SITE = SEED.rpartition("/")[0]
ENDS = (Stage.CULLED, Stage.CANCELLED, Stage.ROLLED_BACK)
GAINS = st.floats(-2, 2) | st.sampled_from([math.nan, -math.inf])
ERRORS = st.floats(0, 0.5)


@dataclass
class MadeUp:
    """A life's events in order, and words that its story must hold."""

    events: list[leyline.Event] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)


@dataclass
class _Maker:
    """Makes the lives of one place, one after the other."""

    draw: Any
    epoch: int = 1
    made: list[MadeUp] = field(default_factory=list)
    stage: Stage = Stage.DORMANT
    parameters: int = 0
    blueprint: str = ""
    grafted: int = 0

    def life(self) -> None:
        self.made.append(MadeUp())
        self.stage, self.grafted = Stage.DORMANT, 0
        self.blueprint = self.draw(st.sampled_from(BLUEPRINTS))
        self.parameters = self.draw(st.integers(1, 10**7))
        self.plant(self.draw(st.integers(0, 3)))
        self.say(self.blueprint, SITE, f"{self.parameters:,} parameter")
        while targets := [t for t in LIFECYCLE[self.stage].leaves_to if t is not Stage.DORMANT]:
            goes_on, stops = self.draw(st.integers(0, 4)), self.draw(st.integers(0, 19))
            if self.epoch >= NUM_EPOCHS or stops == 19:
                break
            # The first of them is the way to the end of a long life.
            self.move(targets[0] if goes_on else self.draw(st.sampled_from(targets)))

    def say(self, *facts: str) -> None:
        self.made[-1].facts += facts

    def tell(self, *events: leyline.Event) -> None:
        self.made[-1].events += events

    def plant(self, num_rivals: int) -> None:
        seeds = [SEED, *NAMES[1 : 1 + num_rivals]]
        births = tuple(
            leyline.Germinate(seed=s, site=s.rpartition("/")[0], blueprint=self.blueprint, cause="")
            for s in seeds
        )
        cause = f"planted for reason {self.draw(st.integers(1, 99))}"
        self.tell(
            leyline.Decision(epoch=self.epoch, policy="p", cause=cause, commands=births),
            self.report(Stage.GERMINATED, cause),
        )
        self.say(f"planted after epoch {self.epoch}", cause)

    def move(self, to: Stage) -> None:
        if to is not Stage.TRAINING:
            self.epoch += self.draw(st.integers(1, 3))
        cause = f"cause {self.draw(st.integers(1, 99))} of {to.name.lower()}"
        was = self.stage
        if was is Stage.TRAINING and self.draw(st.booleans()):
            self.judge(to, cause)
        else:
            self.command(to, cause)
        if was is Stage.EVALUATING:
            self.measure(to, cause)
        self.tell(self.report(to, cause))
        if to is Stage.GRAFTING:
            self.grafted = self.epoch
            self.say(f"grafted after epoch {self.epoch}")
        if to in ENDS:
            self.say(f"after epoch {self.epoch}", cause, to.name.capitalize().replace("_", " "))

    def command(self, to: Stage, cause: str) -> None:
        if to is Stage.CULLED:
            embargo = self.draw(st.integers(1, 20))
            cull = leyline.Cull(seed=SEED, cause=cause, embargo_epochs=embargo)
            self.tell(leyline.Decision(epoch=self.epoch, policy="p", cause=cause, commands=(cull,)))
            self.say(f"until epoch {self.epoch + embargo}")

    def judge(self, to: Stage, cause: str) -> None:
        """End the race with scores; the other candidate is better or worse as it falls out."""
        scores = tuple(
            leyline.Score(
                seed=seed,
                site=seed.rpartition("/")[0],
                blueprint=self.blueprint,
                parameters=self.parameters,
                gain=self.draw(GAINS),
                gain_error=self.draw(ERRORS),
                threshold=self.draw(GAINS),
                steps=self.draw(st.integers(1, 200)),
                chosen=to is Stage.GRAFTING and seed == SEED,
            )
            for seed in (SEED, NAMES[1])
        )
        command: Any = leyline.Advance(seed=SEED, to=to, cause=cause)
        if to is Stage.CULLED:
            command = leyline.Cull(seed=SEED, cause=cause, embargo_epochs=7)
            self.say(f"until epoch {self.epoch + 7}")
        why = f"judged for reason {self.draw(st.integers(1, 99))}"
        self.tell(
            leyline.Decision(
                epoch=self.epoch, policy="p", cause=why, commands=(command,), scores=scores
            )
        )
        mine = scores[0]
        self.say(f"{mine.steps:,}", cause if not mine.chosen else why)
        if not math.isnan(mine.gain):
            self.say(gain_words(Gain(mine.gain, mine.gain_error)))
            better = sum(other.gain > mine.gain for other in scores)
            self.say(f"number {better + 1} of 2")

    def measure(self, to: Stage, cause: str) -> None:
        before, after = self.draw(st.floats(0, 9)), self.draw(st.floats(0, 9))
        report = leyline.FieldReport(
            epoch=self.epoch,
            seed=SEED,
            site=SITE,
            blueprint=self.blueprint,
            parameters=self.parameters,
            expected_gain=self.draw(GAINS),
            expected_error=self.draw(ERRORS),
            counterfactual_gain=self.draw(GAINS),
            counterfactual_error=self.draw(ERRORS),
            verdict=to.name,
            cause=cause,
            grafted_epoch=self.grafted,
            steps=self.draw(st.integers(1, 5000)),
            metrics_before={"val_loss": before},
            metrics_after={"val_loss": after},
        )
        self.tell(report)
        self.say(f"val_loss {figure(before)} -> {figure(after)}", "what the host has learnt")
        self.say(f"{counted(report.steps, 'step')} later", cause)
        expected = Gain(report.expected_gain, report.expected_error)
        found = Gain(report.counterfactual_gain, report.counterfactual_error)
        if not math.isnan(expected.value):
            self.say(gain_words(expected))
        if not math.isnan(found.value):
            self.say(gain_words(found._replace(value=abs(found.value))).removeprefix("+"))

    def report(self, to: Stage, cause: str) -> leyline.SeedReport:
        was, self.stage = self.stage, to
        return leyline.SeedReport(
            epoch=self.epoch,
            seed=SEED,
            site=SITE,
            blueprint=self.blueprint,
            was=was,
            now=to,
            parameters=self.parameters,
            alpha=0.0 if to <= Stage.GRAFTING else 1.0,
            cause=cause,
        )

    def free(self) -> None:
        self.epoch += self.draw(st.integers(1, 3))
        self.tell(self.report(Stage.DORMANT, "free again"))


@st.composite
def made_up_lives(draw: Any) -> tuple[list[leyline.Event], list[MadeUp]]:
    """A whole run's events, and the lives of `SEED` in them, oldest first."""
    maker = _Maker(draw)
    maker.life()
    while maker.stage in ENDS and maker.epoch < NUM_EPOCHS - 3 and draw(st.booleans()):
        maker.free()
        maker.life()
    events = [started(), schema(), *(event for made in maker.made for event in made.events)]
    return events, maker.made
