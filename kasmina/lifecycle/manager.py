"""The lifecycle manager: the one way by which a seed goes from stage to stage."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from kasmina.guard import attempt, describe
from kasmina.lifecycle.record_sink import RecordSink
from kasmina.lifecycle.reports import Reports
from kasmina.lifecycle.seed_record import unpack_record
from kasmina.lifecycle.seed_table import SeedTable
from leyline import Evidence, LifecycleMetrics, SeedReport, Stage, validate

TransitionCallback = Callable[[SeedReport], object]
"""Told of every transition that was made."""


class CallbackHandle:
    """Takes a registered callback back."""

    def __init__(self, callbacks: dict[int, TransitionCallback], key: int):
        self._callbacks = callbacks
        self._key = key

    def remove(self) -> None:
        """Tell the callback nothing more; once is enough."""
        self._callbacks.pop(self._key, None)


class LifecycleManager:
    """Validates a request, carries it out, writes it down, commits a record and tells everyone.

    Args:
        table: where the seeds' rows are.
        reports: words what was done.
        carry_out: does to the model what the transition means; if it raises, the row stays.
        sink: where seed records go.
    """

    def __init__(
        self,
        table: SeedTable,
        reports: Reports,
        carry_out: Callable[[str, Stage], None],
        sink: RecordSink,
    ):
        self.sink = sink
        self._table = table
        self._reports = reports
        self._carry_out = carry_out
        self._callbacks: dict[int, TransitionCallback] = {}
        self._num_registered = 0
        self._callback_faults: list[str] = []
        self._last_id = sink.last_id
        self._num_records = 0
        self._num_transitions = 0
        self._num_refusals = 0

    def on_transition(self, callback: TransitionCallback) -> CallbackHandle:
        """Have a callback told of every transition, after it was made and recorded.

        What it raises is contained and reported as a fault. Should the boundary fail later on, its
        transitions are undone without another call.
        """
        self._num_registered += 1
        self._callbacks[self._num_registered] = callback
        return CallbackHandle(self._callbacks, self._num_registered)

    def request(
        self, seed: str, to: Stage, evidence: Evidence, *, epoch: int, cause: str, **cells: float
    ) -> SeedReport:
        """Make one transition.

        Args:
            cells: what else changes in the seed's row; the record includes it.

        Raises:
            LifecycleError: the lifecycle does not allow it now; nothing was changed.
            SiteError: the site cannot carry the seed; nothing was changed.
        """
        was = self._table.stage(seed)
        validate(seed, was, to, evidence)
        self._carry_out(seed, to)
        self._table.advance(seed, to, evidence)
        self._last_id += 1
        self._table.put(seed, checkpoint_id=self._last_id, **cells)
        report = self._reports.made(seed, was, epoch, cause)
        self.sink.commit(seed, self._last_id, self._table.record(seed, report.blueprint))
        self._num_records += 1
        self._num_transitions += 1
        self._tell(report)
        return report

    def refused(self) -> None:
        """Count a request that somebody refused."""
        self._num_refusals += 1

    def restore(self, record: bytes) -> str:
        """Put one seed's row back from its record; the model is the caller's to bring in line.

        Returns:
            The seed's name.

        Raises:
            CheckpointError: the record is damaged; nothing was changed.
            SiteError, BlueprintError: its site or blueprint is not known here; nothing was changed.
        """
        saved = unpack_record(record)
        site, blueprint = self._reports.numbers(saved.site, saved.blueprint)
        seed = self._table.restore(record)
        self._table.put(seed, site=site, blueprint=blueprint)
        self._last_id = max(self._last_id, saved.checkpoint_id)
        return seed

    def take_callback_faults(self) -> list[str]:
        """What callbacks have raised since this was last asked."""
        faults, self._callback_faults = self._callback_faults, []
        return faults

    def take_metrics(self, epoch: int, num_faults: int) -> LifecycleMetrics:
        """Sum up what happened since this was last asked.

        Args:
            num_faults: faults of any kind that were contained since then.
        """
        stage, alpha = self._table.column("stage"), self._table.column("alpha")
        grafting = alpha[stage == Stage.GRAFTING]
        metrics = LifecycleMetrics(
            epoch=epoch,
            stages=self._table.num_by_stage(),
            transitions=self._num_transitions,
            mean_alpha=float(np.mean(grafting)) if len(grafting) else math.nan,
            seed_checkpoints=self._num_records,
            faults=num_faults,
            refusals=self._num_refusals,
        )
        self._num_transitions = self._num_refusals = 0
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """How many records there were; ids are in the table, other counts begin at a boundary."""
        return {"num_records": self._num_records}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved count, once the table is loaded; ids never go back."""
        self._num_records = state["num_records"]
        saved = self._table.column("checkpoint_id")
        self._last_id = max(self._last_id, int(saved.max(initial=0)))

    def _tell(self, report: SeedReport) -> None:
        for callback in tuple(self._callbacks.values()):
            outcome = attempt(partial(callback, report))
            if isinstance(outcome, Exception):
                name = getattr(callback, "__qualname__", type(callback).__name__)
                self._callback_faults.append(f"{name} for {report.seed}: {describe(outcome)}")
