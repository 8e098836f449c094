"""Gather: the live columns and the epoch's metrics as one state packet, under a schema."""

from __future__ import annotations

from array import array
from collections.abc import Mapping

from kasmina import Executor
from leyline import Candidate, Schema, SiteInfo, StatePacket

_MIN_BUDGET = 16_384


class Gatherer:
    """Builds the packet of a boundary; sites and candidates are worked out once."""

    def __init__(self, executor: Executor, *, run_id: str, param_budget: int | None):
        self._executor = executor
        self._run_id = run_id
        self._param_budget = param_budget
        self._sites: tuple[SiteInfo, ...] = ()
        self._candidates: tuple[Candidate, ...] = ()
        self._schema: Schema | None = None

    def survey_done(self) -> None:
        """The executor knows its sites now: work out what can be planted where."""
        self._sites = self._executor.grounds.site_infos()
        self._candidates = self._executor.grounds.candidates

    def schema(self, metric_names: tuple[str, ...]) -> Schema:
        """The names that packets refer to; a new id whenever they change."""
        seeds = tuple(self._executor.table.names)
        held = self._schema
        blueprints = self._executor.grounds.blueprints
        if (
            held is not None
            and held.seeds == seeds
            and held.metrics == metric_names
            and held.blueprints == blueprints
            and held.sites == self._sites
        ):
            return held
        self._schema = Schema(
            run_id=self._run_id,
            schema_id=1 if held is None else held.schema_id + 1,
            sites=self._sites,
            blueprints=blueprints,
            candidates=self._candidates,
            metrics=metric_names,
            seeds=seeds,
        )
        return self._schema

    def packet(
        self,
        metrics: Mapping[str, float],
        *,
        epoch: int,
        step: int,
        num_epochs: int,
        host_parameters: int,
    ) -> StatePacket:
        """The state at this boundary; its columns are views over the live table."""
        budget = self._param_budget
        return StatePacket(
            schema_id=self._schema.schema_id if self._schema is not None else 0,
            epoch=epoch,
            step=step,
            num_epochs=num_epochs,
            host_parameters=host_parameters,
            grown_parameters=self._executor.grown_parameters(),
            param_budget=max(_MIN_BUDGET, host_parameters) if budget is None else budget,
            trials_possible=self._executor.trials_waived is None,
            metrics=memoryview(array("d", metrics.values())),
            **self._executor.table.columns(),
        )
