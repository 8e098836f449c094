"""Any event in words, on one line."""

from __future__ import annotations

import leyline
from leyline import Stage
from tolaria.show.bus import bus_words
from tolaria.show.health import (
    alert_head,
    alert_why,
    breaker_head,
    breaker_why,
    risk_head,
    risk_why,
)
from tolaria.show.latency import boundary_ms
from tolaria.show.lives import Gain
from tolaria.show.phrases import (
    cause_words,
    clean,
    counted,
    figure,
    gain_words,
    headline,
    metric_words,
    milliseconds,
    stage_word,
)
from tolaria.show.sites import sites_words


def event_words(event: leyline.Event) -> str:
    """What an event says, on one line that cannot steer a terminal."""
    return _growth_words(event) or _course_words(event) or _bus_words(event)


def _growth_words(event: leyline.Event) -> str:
    match event:
        case leyline.Decision():
            why = cause_words(event)
            undone = f" (undone: {clean(event.undone)} failed)" if event.undone else ""
            late = " (too late, discarded)" if event.late else ""
            return headline(event) + (f": {why}" if why else "") + late + undone
        case leyline.SeedReport():
            return _transition_words(event)
        case leyline.FieldReport():
            expected = gain_words(Gain(event.expected_gain, event.expected_error))
            found = gain_words(Gain(event.counterfactual_gain, event.counterfactual_error))
            words = f"trial {expected}, counterfactual {found}: {_verdict(event.verdict)}"
            return f"{clean(event.seed)} {clean(event.blueprint)}: {words}"
        case leyline.SitesFound():
            number, note = sites_words(event)
            return f"{number} sites may grow, {note}"
        case leyline.Schema():
            places = counted(len(event.seeds), "place")
            return f"{counted(len(event.sites), 'site')}, {places}, names for later packets"
        case leyline.StatePacket():
            return f"state of {counted(len(event.column('stage')), 'place')} at step {event.step:,}"
        case leyline.LifecycleMetrics():
            moves = f"{counted(event.transitions, 'transition')}, {counted(event.faults, 'fault')}"
            return f"{_stages(event.stages)}; {moves}, {event.refusals} refused"
    return ""


def _course_words(event: leyline.Event) -> str:
    match event:
        case leyline.RunStarted():
            verb = "goes on" if event.resumed else "starts"
            return f"{verb}: {clean(event.model)}, {event.host_parameters:,} parameters"
        case leyline.StepMetrics():
            return f"step {event.step:,}  loss {figure(event.loss)}"
        case leyline.EpochMetrics():
            return f"{metric_words(event.metrics)}; {event.parameters:,} parameters"
        case leyline.BoundaryTiming():
            parts = boundary_ms(event)._asdict()
            return "  ".join(f"{name} {milliseconds(ms)}" for name, ms in parts.items())
        case leyline.LatencyAlert():
            return f"{alert_head(event)}: {alert_why(event)}"
        case leyline.LearningRates():
            host = ", ".join(figure(rate) for rate in event.host)
            return f"host {host}; {counted(len(event.seeds), 'seed')}"
        case leyline.BreakerChange():
            return f"{breaker_head(event)}: {breaker_why(event)}"
        case leyline.RiskChanged():
            return f"{risk_head(event)}: {risk_why(event)}"
        case leyline.Fault():
            return f"{clean(event.where)}: {clean(event.what)} -> {clean(event.action)}"
        case leyline.RunEnded():
            return f"{clean(event.status)}; {metric_words(event.metrics)}".rstrip("; ")
    return ""


def _bus_words(event: leyline.Event) -> str:
    match event:
        case leyline.BusReport():
            return bus_words(event)
        case leyline.DropsCounted():
            by_type = (f"{num:,} {clean(kind)}" for kind, num in event.dropped_by_type.items())
            return f"dropped so far: {', '.join(by_type)}"
    return ""


def _transition_words(report: leyline.SeedReport) -> str:
    seed, blueprint = clean(report.seed), clean(report.blueprint)
    if report.refused:
        return f"{seed} stays {_stage(report.now)}, refused: {clean(report.refused)}"
    alpha = f" at alpha {report.alpha:.2f}" if report.now == Stage.GRAFTING else ""
    cause = f": {clean(report.cause)}" if report.cause else ""
    return f"{seed} {blueprint} {_stage(report.was)} -> {_stage(report.now)}{alpha}{cause}"


def _stages(stages: dict[str, int]) -> str:
    in_use = {stage: num for stage, num in stages.items() if num and stage != "DORMANT"}
    return "  ".join(f"{num} {stage_word(clean(stage))}" for stage, num in in_use.items()) or "none"


def _stage(number: int) -> str:
    known = number in Stage.__members__.values()
    return stage_word(Stage(number).name) if known else str(number)


def _verdict(verdict: str) -> str:
    verdict = clean(verdict)
    return stage_word(verdict) if verdict in Stage.__members__ else verdict
