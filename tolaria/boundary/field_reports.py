"""Field reports: what was expected of a graft, and what the counterfactual said of it."""

from __future__ import annotations

from collections.abc import Iterable

from kasmina import SeedTable
from leyline import FieldReport, SeedReport, Stage


def field_reports(table: SeedTable, reports: Iterable[SeedReport]) -> list[FieldReport]:
    """One field report for each seed that has just been judged."""
    judged = [r for r in reports if r.was == Stage.EVALUATING and not r.refused]
    return [
        FieldReport(
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
        )
        for report in judged
    ]
