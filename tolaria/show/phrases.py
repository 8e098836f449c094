"""Figures, gains and decisions in words, alike on the terminal and in the report."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from leyline import Advance, Cull, Decision, Germinate, Stage
from tolaria.show.lives import Gain, SeedLife

_NUM_NAMES: Final = 3
"""Seeds that one phrase names; more are counted."""

_VERBS: Final = {
    Stage.GRAFTING: "graft",
    Stage.STABILIZATION: "stabilise",
    Stage.EVALUATING: "evaluate",
    Stage.FINE_TUNING: "fine-tune",
    Stage.FOSSILIZED: "fossilize",
    Stage.ROLLED_BACK: "roll back",
    Stage.CULLED: "cull",
    Stage.TRAINING: "try",
    Stage.CANCELLED: "cancel",
    Stage.DORMANT: "free",
}
"""What moving a seed to a stage is called; what matters most to a reader comes first."""


class Stretch(NamedTuple):
    """Decisions in a row that say the same: the first and last epoch, and the last of them."""

    first: int
    last: int
    decision: Decision

    @property
    def epochs(self) -> str:
        """The epochs it covers, as "4" or "4-7"."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def clean(text: str) -> str:
    """The text on one line, without characters that could steer a terminal or break a page."""
    words = " ".join(text.split())
    return "".join(char if char.isprintable() else "\ufffd" for char in words)


def figure(value: float) -> str:
    """A count with its thousands marked, or four digits of a measure; "-" if not measured."""
    if isinstance(value, int):
        return f"{value:,}"
    if math.isnan(value):
        return "-"
    return f"{value:.4g}" if abs(value) < 1e5 else f"{value:.3e}"


def gain_words(gain: Gain) -> str:
    """A gain with its sign and standard error; "-" if not measured."""
    if math.isnan(gain.value):
        return "-"
    digits = ".4f" if abs(gain.value) >= 0.001 or gain.error >= 0.001 else ".1e"
    error = "" if math.isnan(gain.error) else f" +- {gain.error:{digits}}"
    return f"{gain.value:+{digits}}{error}"


def work_words(step_cost: float) -> str:
    """Work added to a training step, as a share of the host's own."""
    return f"{100 * step_cost:+.3g} %" if math.isfinite(step_cost) and step_cost else "-"


def flops_words(flops: dict[str, int]) -> str:
    """FLOPs in all, and the share of each use of them; empty if none are known."""
    total = sum(flops.values())
    if total <= 0:
        return ""
    shares = (f"{clean(use)} {100 * num / total:.0f} %" for use, num in flops.items())
    return f"{total / 1e9:,.4g} G: {', '.join(shares)}"


def milliseconds(ms: float) -> str:
    """A duration in the unit that suits it; "-" if not measured."""
    if math.isnan(ms):
        return "-"
    if ms >= 60_000:
        return f"{ms / 60_000:.1f} min"
    if ms >= 1000:
        return f"{ms / 1000:.1f} s"
    return f"{ms:.0f} ms" if ms >= 100 else f"{ms:.2f} ms"


def growth(host: int, now: int) -> str:
    """The host's parameters and what growth made of them."""
    if now == host:
        return f"{host:,} (nothing grown)"
    share = f", {100 * (now - host) / host:+.1f} %" if host else ""
    return f"{host:,} -> {now:,} ({now - host:+,}{share})"


def counted(num: int, noun: str) -> str:
    """A count with its noun, which takes an s in the plural."""
    return f"{num:,} {noun}" + ("s" if num != 1 else "")


def life_name(life: SeedLife) -> str:
    """A seed's name, with the number of its life where its place had others before."""
    return clean(life.seed) + (f" (life {life.life})" if life.life > 1 else "")


def life_words(lives: Iterable[SeedLife]) -> str:
    """What such a name says, shown on one of them; empty if there is none."""
    life = max(lives, key=lambda life: life.life, default=None)
    if life is None:
        return ""
    place = clean(life.seed).rpartition("/")[2]
    words = f"{clean(life.seed)} names place {place} at the site {clean(life.site)}"
    return words + (
        f"; (life {life.life}): number {life.life} of those tried there" * (life.life > 1)
    )


def stage_word(stage: str) -> str:
    """A stage's name as a word of a sentence."""
    return stage.lower().replace("_", " ")


def metric_words(metrics: dict[str, float]) -> str:
    """Metrics in the order given, for one line."""
    return "  ".join(f"{clean(name)} {figure(value)}" for name, value in metrics.items())


def headline(decision: Decision) -> str:
    """What a decision wants done, without its cause."""
    births = [command for command in decision.commands if isinstance(command, Germinate)]
    moves: dict[int, list[str]] = {}
    for command in decision.commands:
        if not isinstance(command, Germinate):
            to = command.to if isinstance(command, Advance) else Stage.CULLED
            moves.setdefault(to, []).append(command.seed)
    phrases = [f"{verb} {_named(moves[to])}" for to, verb in _VERBS.items() if to in moves]
    phrases += [f"move {_named(moves[to])} to stage {to}" for to in moves if to not in _VERBS]
    if len(births) == 1:
        phrases.append(f"try {clean(births[0].blueprint)} at {clean(births[0].site)}")
    elif births:
        sites = len({command.site for command in births})
        phrases.append(f"race of {counted(len(births), 'candidate')} at {counted(sites, 'site')}")
    return ", ".join(phrases) or "hold"


def cause_words(decision: Decision) -> str:
    """Why, on one line: the cause of the only command, else those of culls and the decision's.

    However many seeds are culled, the causes of the first few are said.
    """
    if len(decision.commands) == 1 and decision.commands[0].cause and not decision.scores:
        return clean(decision.commands[0].cause)
    cause = decision.cause or next((command.cause for command in decision.commands), "")
    causes = [command.cause for command in decision.commands if isinstance(command, Cull)]
    culls = list(dict.fromkeys(causes))
    if len(culls) > _NUM_NAMES:
        culls = [*culls[:_NUM_NAMES], f"and {counted(len(culls) - _NUM_NAMES, 'more cause')}"]
    cause = "; ".join([*culls, cause] if cause not in culls else culls)
    return clean(cause).removeprefix("hold: ")


def pattern(decision: Decision) -> str:
    """What a decision says apart from its figures; equal ones are one cause to a reader."""
    return re.sub(r"[-+]?\d[\d.,]*", "#", f"{headline(decision)}: {cause_words(decision)}")


def stretches(decisions: Iterable[Decision]) -> list[Stretch]:
    """Decisions in order, with holds for the same cause in a row made one."""
    joined: list[Stretch] = []
    for decision in decisions:
        before = joined[-1] if joined else None
        if before and not decision.commands and pattern(before.decision) == pattern(decision):
            joined[-1] = Stretch(before.first, decision.epoch, decision)
        else:
            joined.append(Stretch(decision.epoch, decision.epoch, decision))
    return joined


def _named(seeds: list[str]) -> str:
    if len(seeds) <= _NUM_NAMES:
        return " and ".join(clean(seed) for seed in seeds)
    return counted(len(seeds), "candidate")
