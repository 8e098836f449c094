"""Field reports: what was done, what was expected of it, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

from kasmina import SeedTable
from leyline import FieldReport, SeedReport, Stage
from leyline.lifecycle import WITHDRAWALS
from tolaria.show.view import RunView

_GRAFTED: Final = range(Stage.GRAFTING, Stage.FOSSILIZED)


def field_reports(
    table: SeedTable,
    view: RunView,
    reports: Iterable[SeedReport],
    *,
    step: int,
    metrics: Mapping[str, float],
) -> list[FieldReport]:
    """One field report for each seed that has just been judged.

    Args:
        table: what was measured of the seeds.
        view: the run as it was told so far; these reports may be in it or not.
        reports: the transitions of one boundary or rollback.
        step: optimizer steps so far.
        metrics: those of the stretch that ends; none in the middle of it.
    """
    return [
        _judge(table, view, report, step, dict(metrics)) for report in reports if _judged(report)
    ]


def _judged(report: SeedReport) -> bool:
    is_taken_out = report.was in _GRAFTED and report.now in WITHDRAWALS
    return (report.was == Stage.EVALUATING or is_taken_out) and not report.refused


def _judge(
    table: SeedTable, view: RunView, report: SeedReport, step: int, metrics: dict[str, float]
) -> FieldReport:
    life = view.life(report.seed)
    grafted = (life and life.epoch_of(Stage.GRAFTING)) or 0
    return FieldReport(
        epoch=report.epoch,
        seed=report.seed,
        site=report.site,
        blueprint=report.blueprint,
        parameters=report.parameters,
        expected_gain=table.get(report.seed, "trial_gain"),
        expected_error=table.get(report.seed, "trial_error"),
        counterfactual_gain=table.get(report.seed, "counterfactual_gain"),
        counterfactual_error=table.get(report.seed, "counterfactual_error"),
        verdict=Stage(report.now).name,
        cause=report.cause,
        trial_steps=table.get(report.seed, "trial_steps"),
        grafted_epoch=grafted,
        settled_epoch=(life and life.epoch_of(Stage.STABILIZATION)) or 0,
        steps=max(step - view.step_at(grafted), 0) if grafted else 0,
        alpha=life.marks[-1].alpha if life and life.marks else math.nan,
        metrics_before=dict(view.metrics.get(grafted, {})),
        metrics_after=metrics,
    )
