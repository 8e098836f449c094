"""The course of a made-up run as far as metrics tell of it."""

from __future__ import annotations

import leyline


def report(seed: str, now: int, refused: str = "") -> leyline.SeedReport:
    return leyline.SeedReport(
        epoch=1,
        seed=seed,
        site="a",
        blueprint="norm",
        was=0,
        now=now,
        parameters=8,
        alpha=0.0,
        cause="",
        refused=refused,
    )


def breaker(now: str) -> leyline.BreakerChange:
    return leyline.BreakerChange(
        epoch=1, step=9, name="bus", was="closed", now=now, why="away", hold=1.0, unit="s"
    )


def alert(*, resolved: bool) -> leyline.LatencyAlert:
    return leyline.LatencyAlert(
        epoch=1, part="apply", p95_ms=12.0, limit_ms=10.0, num_boundaries=20, resolved=resolved
    )


def timing(epoch: int, gather_ms: float, race_ms: float) -> leyline.BoundaryTiming:
    return leyline.BoundaryTiming(
        epoch=epoch,
        gather_ms=gather_ms,
        decide_ms=0.5,
        apply_ms=0.5,
        outside_ms={"race": race_ms, "snapshot": 0.0},
    )


STARTED = leyline.RunStarted(
    run_id="r", epoch=0, num_epochs=9, host_parameters=100, model="Net", resumed=False
)
ENDED = leyline.RunEnded(run_id="r", epoch=2, status="finished", parameters=108, metrics={})
EPOCH = leyline.EpochMetrics(
    epoch=1,
    num_epochs=9,
    step=45,
    metrics={"val_loss": 0.25},
    parameters=108,
    stages={"TRAINING": 3, "DORMANT": 5},
)
BUS = leyline.BusReport(
    epoch=1,
    offered=70,
    delivered=60,
    dropped=3,
    queued=7,
    dropped_by_type={"StepMetrics": 3},
    latency_ms={"send": (1.0, 2.0, 4.0)},
)
CULL = leyline.Cull(seed="a/1", cause="", embargo_epochs=1)

COURSE: tuple[leyline.Event, ...] = (
    STARTED,
    leyline.StepMetrics(step=44, loss=0.75),
    leyline.StepMetrics(step=45, loss=0.5),
    leyline.Decision(epoch=1, policy="p", cause="c"),
    leyline.Decision(epoch=1, policy="p", cause="c", commands=(CULL, CULL)),
    leyline.RiskChanged(epoch=1, step=45, was=0, now=2, causes=("2 rollbacks",)),
    report("a/0", 2),
    report("a/1", 2),
    report("a/0", 9),
    report("a/0", 3, refused="too early"),
    EPOCH,
    leyline.LearningRates(epoch=1, step=45, host=(0.1, 0.01), seeds={"a/0": 0.1}),
    timing(1, 0.5, 900.0),
    timing(2, 16.5, 100.0),
    leyline.Fault(epoch=1, step=9, where="race", what="w", action="a"),
    breaker("open"),
    alert(resolved=False),
    BUS,
)
