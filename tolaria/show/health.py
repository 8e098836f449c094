"""Breakers and latency alerts in words, alike on the terminal, in the report and in inspect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leyline import BreakerChange, LatencyAlert
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


def health_words(view: RunView) -> str:
    """The breakers that are not closed and the alerts that stand; empty if all is well."""
    words = [
        f"{clean(change.name)} {_WORDS.get(change.now, clean(change.now))}, {breaker_why(change)}"
        for change in view.breakers.values()
        if change.now != "closed"
    ]
    words += [f"{clean(alert.part)} slow, {alert_why(alert)}" for alert in view.standing_alerts]
    return "; ".join(words)


def health_lines(view: RunView) -> list[str]:
    """Every change of a breaker and every alert of the run, by epoch."""
    dated = [
        (c.epoch, f"epoch {c.epoch}: {breaker_head(c)}: {breaker_why(c)}")
        for c in view.breaker_changes
    ]
    dated += [(a.epoch, f"epoch {a.epoch}: {alert_head(a)}: {alert_why(a)}") for a in view.alerts]
    return [line for _, line in sorted(dated, key=lambda pair: pair[0])]
