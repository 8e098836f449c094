"""Risk at a boundary: the signals are gathered, the level is judged, its decision bears it."""

from __future__ import annotations

from dataclasses import replace
from typing import NoReturn

import msgspec

from leyline import RiskChanged, RiskError, RiskLevel
from tamiyo.risk.engine import Assessment
from tamiyo.risk.signals import Signals
from tolaria.boundary.breakers import OPEN
from tolaria.boundary.commit import Outcome
from tolaria.live_run import LiveRun
from tolaria.rollback.response import way_on


def assess(esper: LiveRun) -> Assessment:
    """Judge the stretch that ends; what was to be rolled back has been by now."""
    watch, breakers, last = esper.watch, esper.breakers, esper.last_report
    gradient_norm, gradient_variance = watch.gradient() or (None, None)
    by_boundaries = (breakers.policy, breakers.executor, breakers.learning_rates)
    signals = Signals(
        **watch.counts(),
        has_unsettled=esper.recovery.has_unsettled,
        gradient_norm=gradient_norm,
        gradient_variance=gradient_variance,
        num_breakers_open=sum(breaker.state == OPEN for breaker in by_boundaries),
        chance=watch.chance.see(
            esper.epoch,
            watch.memory,
            overran=last is not None and not last.within_limit,
            saves_held=breakers.checkpoint.state == OPEN,
        ),
    )
    return watch.risk.assess(signals)


def marked(outcome: Outcome, risk: Assessment) -> Outcome:
    """The outcome, its decision bearing the level: what a policy wrote there is written over."""
    decision = msgspec.structs.replace(
        outcome.decision,
        risk_level=int(risk.level),
        risk_causes=risk.causes,
        # A critical one has ended the run: what goes on from before it is to get past it.
        risk_by_chance=int(min(risk.by_chance, RiskLevel.RED)),
    )
    return replace(outcome, decision=decision)


def changes(esper: LiveRun, risk: Assessment) -> list[RiskChanged]:
    """The event that tells of a new level, if it is one."""
    if risk.level is risk.was:
        return []
    return [
        RiskChanged(
            epoch=esper.epoch,
            step=esper.step,
            was=int(risk.was),
            now=int(risk.level),
            causes=risk.causes,
            pace=int(esper.watch.risk.pace),
        )
    ]


def stop(esper: LiveRun) -> NoReturn:
    """End the run because a boundary was critical; its checkpoint is written by now.

    Raises:
        RiskError: always; it names the causes, and what to go on from.
    """
    why = "; ".join(esper.watch.ends_for)
    esper.watch.ends_for = ()
    esper.fault("risk", why, "the run stops")
    raise RiskError(f"risk is critical after epoch {esper.epoch}: {why}; {way_on(esper)}")
