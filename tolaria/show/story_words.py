"""A seed's story in plain sentences, alike on the terminal and in the report."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, NamedTuple

from leyline import FieldReport, Stage
from tolaria.show.lives import Gain
from tolaria.show.phrases import (
    clean,
    counted,
    figure,
    gain_words,
    life_name,
    stage_word,
    work_words,
)
from tolaria.show.race_words import race_sentences
from tolaria.show.story import Story

_NUM_ALPHAS: Final = 6
"""Values of alpha that a sentence lists; of more, the first and the last."""
_NOW: Final = {
    Stage.DORMANT: "nothing is there",
    Stage.GERMINATED: "its blueprint is proven; its trial is to come",
    Stage.TRAINING: "it is on trial beside the network, which it does not touch",
    Stage.GRAFTING: "it is being blended in",
    Stage.STABILIZATION: "it is at alpha 1; the host settles around it",
    Stage.EVALUATING: "it is at alpha 1, and its counterfactual is awaited: kept, unproven",
    Stage.FINE_TUNING: "it trains on with the host, and can still be taken out",
    Stage.FOSSILIZED: "it is part of the network for good",
}


class Chapter(NamedTuple):
    """What is told of one part of a life."""

    heading: str
    sentences: list[str]


def headline_of(story: Story) -> str:
    """The life in one line."""
    life = story.life
    words = f"{life_name(life)}: {clean(life.blueprint)}, {stage_word(life.stage.name)}"
    if story.grafted is not None:
        words += f", grafted after epoch {story.grafted}"
    if not math.isnan(life.trial.value):
        words += f", trial gain {gain_words(life.trial)}"
    return words


def tell(story: Story) -> list[Chapter]:
    """The life in sentences, chapter by chapter; of what is not known nothing is said."""
    chapters = [
        Chapter("what", list(_what(story))),
        Chapter("race", list(race_sentences(story))),
        Chapter("graft", list(_graft(story))),
        Chapter("verdict", list(_verdict(story))),
        Chapter("outcome", list(_outcome(story))),
        Chapter("trouble", list(_trouble(story))),
        Chapter("now", list(_now(story))),
    ]
    return [chapter for chapter in chapters if chapter.sentences]


def _what(story: Story) -> Iterator[str]:
    life, site = story.life, story.site
    place = clean(life.seed).rpartition("/")[2]
    where = f"It sits at place {place} of the site {clean(life.site)}"
    if site is not None:
        shape = " x ".join(map(str, site.shape))
        where += f", whose output has {counted(site.channels, 'channel')}"
        where += f" (shape {shape}, batch included)"
        if site.num_chunks > 1 and place.isdigit():
            part = int(place) % site.num_chunks + 1
            where += f"; it extends part {part} of {site.num_chunks} of them"
    yield f"{where}."
    costs = [counted(life.parameters, "parameter")]
    if story.host_parameters:
        share = 100 * life.parameters / story.host_parameters
        costs = [f"{costs[0]} ({share:.3g} % of the host's {story.host_parameters:,})"]
    if story.flops is not None:
        costs.append(f"{counted(story.flops, 'FLOP')} per example forward")
    if story.step_cost:
        costs.append(f"{work_words(story.step_cost)} work in a training step")
    yield f"Its blueprint is {clean(life.blueprint)}: {', '.join(costs)}."
    if life.life > 1:
        yield f"It is number {life.life} of those tried at that place."


def _graft(story: Story) -> Iterator[str]:
    if story.grafted is None:
        return
    tried = story.race is not None and story.race.mine.steps > 0
    began = " with the weights of its trial" if tried else ""
    why = next((r.cause for r in story.life.transitions if r.now == Stage.GRAFTING), "")
    words = f": {clean(why)}" if why and story.race is None else ""
    yield f"It was grafted after epoch {story.grafted}{began}{words}."
    alphas = list(story.alphas.items())
    if len(alphas) > _NUM_ALPHAS:
        alphas = [alphas[0], alphas[-1]]
    if len(alphas) > 1:
        path = ", ".join(f"{alpha:.2f} after epoch {epoch}" for epoch, alpha in alphas)
        length = counted(alphas[-1][0] - alphas[0][0], "epoch")
        full = alphas[-1][1] >= 1.0
        yield f"Alpha {'rose to 1' if full else 'rises'} in {length}: {path}."


def _verdict(story: Story) -> Iterator[str]:
    measured = story.life.counterfactual
    if not story.field_reports and not math.isnan(measured.value):
        yield f"Its counterfactual gain so far is {gain_words(measured)}."
    for report in story.field_reports:
        found = Gain(report.counterfactual_gain, report.counterfactual_error)
        when = f"After epoch {report.epoch}"
        if math.isnan(found.value):
            yield f"{when} its counterfactual had not been measured."
        else:
            verb = "higher" if found.value >= 0 else "lower"
            size = gain_words(Gain(abs(found.value), found.error)).removeprefix("+")
            yield (
                f"{when}, with it switched off, the loss on the same held-out batches was "
                f"{size} {verb}{_in_errors(found)}; this can only veto, for a host that leans on "
                "a seed inflates it."
            )
        why = clean(report.cause)
        yield f"Verdict: {_stage(report.verdict)}" + (f", because {why}." if why else ".")


def _in_errors(gain: Gain) -> str:
    if not gain.error > 0 or not math.isfinite(gain.value / gain.error):
        return ""
    return f" ({abs(gain.value) / gain.error:.1f} standard errors)"


def _outcome(story: Story) -> Iterator[str]:
    for report in story.field_reports:
        expected = Gain(report.expected_gain, report.expected_error)
        if not math.isnan(expected.value):
            found = gain_words(Gain(report.counterfactual_gain, report.counterfactual_error))
            yield f"Expected by its trial: {gain_words(expected)}; counterfactual: {found}."
        moved = list(_moved(report))
        if moved:
            steps = f", {counted(report.steps, 'step')} later" if report.steps else ""
            yield (
                f"From before the graft (epoch {report.grafted_epoch}) to the verdict (epoch "
                f"{report.epoch}{steps}): {', '.join(moved)}. What lies between is also what the "
                "host has learnt meanwhile; the trial's gain alone is the seed's own."
            )


def _moved(report: FieldReport) -> Iterator[str]:
    for name, before in report.metrics_before.items():
        if name in report.metrics_after:
            after = report.metrics_after[name]
            yield f"{clean(name)} {figure(float(before))} -> {figure(float(after))}"


def _trouble(story: Story) -> Iterator[str]:
    for fault in story.faults:
        what = f"{clean(fault.what)}; {clean(fault.action)}"
        yield f"Epoch {fault.epoch}, step {fault.step:,}: {what}."
    for refusal in story.refusals:
        yield f"Epoch {refusal.epoch}: a transition was refused: {clean(refusal.refused)}."


def _now(story: Story) -> Iterator[str]:
    life = story.life
    stage = life.stage
    since = life.epoch_of(stage)
    when = "" if since is None else f" since the boundary of epoch {since}"
    if stage in _NOW:
        words = f"{_NOW[stage]} (alpha {life.alpha:.2f})"
        yield f"{stage_word(stage.name).capitalize()}{when}: {words}."
        return
    when = "" if since is None else f" after epoch {since}"
    touched = "" if life.touched_host else ", before it touched the network"
    why = f": {clean(life.cause)}." if life.cause else "."
    yield f"{stage_word(stage.name).capitalize()}{when}{touched}{why}"
    if story.embargo_until is not None:
        verb = "stay" if story.epoch < story.embargo_until else "stayed"
        yield f"Its place and blueprint {verb} empty until epoch {story.embargo_until}."


def _stage(verdict: str) -> str:
    verdict = clean(verdict)
    return stage_word(verdict) if verdict in Stage.__members__ else verdict
