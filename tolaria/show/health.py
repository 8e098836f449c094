"""Breakers, latency alerts and risk in words, alike on the terminal, in report and in inspect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leyline import BreakerChange, LatencyAlert, RiskChanged, RiskLevel
from tamiyo.risk.allowance import ALLOWANCES
from tolaria.show.phrases import clean

if TYPE_CHECKING:
    from tolaria.show.view import RunView

_WORDS: Final = {"closed": "closed", "open": "open", "half-open": "tries once"}


def breaker_head(change: BreakerChange) -> str:
    """Which breaker is in which state now."""
    return f"breaker {clean(change.name)} {_WORDS.get(change.now, clean(change.now))}"


def breaker_why(change: BreakerChange) -> str:
    """Why, and for how long."""
    held = f"; held for {change.hold:g} {clean(change.unit)}" if change.hold else ""
    return f"{clean(change.why)}{held}"


def alert_head(alert: LatencyAlert) -> str:
    """Which part of the boundary is too slow, or is no longer."""
    verdict = "back within its limit" if alert.resolved else "over its limit"
    return f"boundary: {clean(alert.part)} {verdict}"


def alert_why(alert: LatencyAlert) -> str:
    """The figures that say so."""
    return (
        f"p95 {alert.p95_ms:.2f} ms of the last {alert.num_boundaries}, limit {alert.limit_ms:g} ms"
    )


def level_name(level: int) -> str:
    """A level of risk by name, in small letters; its number if it has none."""
    return RiskLevel(level).name.lower() if level in list(RiskLevel) else f"level {level}"


def risk_head(change: RiskChanged) -> str:
    """Which level of risk there is now."""
    verb = "rises" if change.now > change.was else "falls"
    return f"risk {verb} from {level_name(change.was)} to {level_name(change.now)}"


def risk_causes(change: RiskChanged) -> str:
    """What brought it about."""
    return "; ".join(clean(cause) for cause in change.causes)


def risk_action(change: RiskChanged) -> str:
    """What a level of risk still allows, and what not."""
    pace = change.now if change.pace is None else change.pace
    if not {change.now, pace} <= ALLOWANCES.keys():
        return "unknown here"
    allowed = ALLOWANCES[RiskLevel(change.now)]
    if change.now == RiskLevel.CRITICAL:
        return "the run ends, with a checkpoint to go on from"
    every = ALLOWANCES[RiskLevel(pace)].alpha_every_steps
    said = [
        f"alpha moves in one of {every} steps" if every > 1 else "" if every else "alpha stands"
    ]
    said += [] if allowed.plants else ["nothing is planted"]
    said += [] if allowed.moves_on else ["no graft begins or settles"]
    return ", ".join(word for word in said if word) or "all goes on as usual"


def risk_why(change: RiskChanged) -> str:
    """What brought it about, and what comes of it."""
    return f"{risk_causes(change)} -> {risk_action(change)}"


def health_words(view: RunView) -> str:
    """Breakers that are not closed, alerts that stand, the level of risk; empty if all is well."""
    words = [
        f"{clean(change.name)} {_WORDS.get(change.now, clean(change.now))}, {breaker_why(change)}"
        for change in view.breakers.values()
        if change.now != "closed"
    ]
    words += [f"{clean(alert.part)} slow, {alert_why(alert)}" for alert in view.standing_alerts]
    if view.risk_changes and view.risk_changes[-1].now > RiskLevel.GREEN:
        last = view.risk_changes[-1]
        words.append(f"risk {level_name(last.now)} since epoch {last.epoch}, {risk_why(last)}")
    return "; ".join(words)


def health_lines(view: RunView) -> list[str]:
    """Every change of a breaker or of the level of risk, and every alert, by epoch; how many
    boundaries the policy lost."""
    dated = [
        (c.epoch, f"epoch {c.epoch}: {breaker_head(c)}: {breaker_why(c)}")
        for c in view.breaker_changes
    ]
    dated += [(a.epoch, f"epoch {a.epoch}: {alert_head(a)}: {alert_why(a)}") for a in view.alerts]
    dated += [
        (r.epoch, f"epoch {r.epoch}: {risk_head(r)}: {risk_why(r)}") for r in view.risk_changes
    ]
    lines = [line for _, line in sorted(dated, key=lambda pair: pair[0])]
    late = sum(decision.late for decision in view.decisions)
    undone = sum(bool(decision.undone) for decision in view.decisions)
    if late or undone:
        lines.append(f"growth was held at {late} late and {undone} failed boundaries")
    return lines
