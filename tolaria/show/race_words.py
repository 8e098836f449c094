"""A seed's race in plain sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator

from leyline import Advance, Cull, Germinate, Score
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
        others = [_whom(winner) for winner in race.winners if winner is not mine]
        beside = f", and so was {' and '.join(others)}" if others else ""
        why = own if others and own else cause_words(race.decision)
        yield f"It was chosen {when}: {why}{beside}."
        return
    yield f"It was not chosen {when}" + (f": {own}." if own else ".")
    if not math.isnan(mine.gain) and mine.gain <= mine.threshold:
        yield "Its gain was not above what was needed."
    if race.winners:
        who = "The winner was" if len(race.winners) == 1 else "The winners were"
        yield f"{who} {' and '.join(map(_whom, race.winners))}."
    else:
        yield f"Nobody won: {cause_words(race.decision).removeprefix('no graft: ')}."


def _whom(winner: Score) -> str:
    who = f"{clean(winner.blueprint)} at {clean(winner.site)} ({clean(winner.seed)})"
    gain = gain_words(Gain(winner.gain, winner.gain_error))
    return f"{who}, with {gain} for {counted(winner.parameters, 'parameter')}"
