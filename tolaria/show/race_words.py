"""A seed's race in plain sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator

from leyline import Advance, Cull, Germinate
from tolaria.show.lives import Gain
from tolaria.show.phrases import cause_words, clean, counted, gain_words
from tolaria.show.story import Race, Story


def race_sentences(story: Story) -> Iterator[str]:
    """With whom it was planted, what its trial brought, and why it won or lost."""
    planted, race = story.planted, story.race
    if planted is not None:
        births = [c for c in planted.commands if isinstance(c, Germinate)]
        sites = counted(len({c.site for c in births}), "site")
        others = f" in a race of {len(births):,} candidates at {sites}" if len(births) > 1 else ""
        why = cause_words(planted)
        yield f"It was planted after epoch {planted.epoch}{others}" + (f": {why}." if why else ".")
    if race is None:
        if not math.isnan(story.life.trial.value):
            yield f"Its trial had a held-out gain of {gain_words(story.life.trial)}."
        return
    mine, num = race.mine, len(race.scores)
    whole = mine.steps == race.num_steps
    steps = f"{mine.steps:,} steps" if whole else f"{mine.steps:,} of {race.num_steps:,} steps"
    needed = gain_words(Gain(mine.threshold))
    among = f", number {race.rank} of {num}" if num > 1 else ""
    if math.isnan(mine.gain):
        yield f"Its gain was not measured, in a trial of {steps}."
    else:
        measured = gain_words(Gain(mine.gain, mine.gain_error))
        asked = "" if needed == "-" else f"; more than {needed} was needed"
        if not math.isnan(mine.value) and mine.value != mine.gain:
            asked += f", and less its costs it is worth {gain_words(Gain(mine.value))}"
        yield f"Its trial of {steps} had a held-out gain of {measured}{among}{asked}."
    yield from _why(race)


def _why(race: Race) -> Iterator[str]:
    """Why it won or lost, in the policy's own words, and against whom."""
    mine, when = race.mine, f"after epoch {race.decision.epoch}"
    command = next((c for c in race.decision.commands if c.seed == mine.seed), None)
    own = clean(command.cause) if isinstance(command, Advance | Cull) else ""
    if mine.chosen:
        yield f"It was chosen {when}: {cause_words(race.decision)}."
        return
    yield f"It was not chosen {when}" + (f": {own}." if own else ".")
    if not math.isnan(mine.gain) and mine.gain <= mine.threshold:
        yield "Its gain was not above what was needed."
    if mine.steps < race.num_steps:
        yield "It left the race early; better ones went on."
    for winner in race.winners:
        gain = gain_words(Gain(winner.gain, winner.gain_error))
        who = f"{clean(winner.blueprint)} at {clean(winner.site)} ({clean(winner.seed)})"
        yield f"The winner, {who}, had {gain} for {counted(winner.parameters, 'parameter')}."
    if not race.winners:
        yield f"Nobody won: {cause_words(race.decision).removeprefix('no graft: ')}."
