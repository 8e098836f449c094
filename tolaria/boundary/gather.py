"""Gather: the live columns and the epoch's metrics as one state packet, under a schema."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Mapping
from numbers import Real
from typing import Any

from torch import Tensor

from kasmina import Executor
from leyline import Candidate, ConfigError, Schema, SiteInfo, StatePacket
from tolaria.config import EsperConfig
from tolaria.growth.flop_count import FlopCount

_LOG = logging.getLogger("esper")
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
        self.schema_id = 0
        """The last id given to a schema; a resumed run goes on from the saved one."""
        self.flops: FlopCount | None = None
        """What packets tell the cost of the run by."""

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
        self.schema_id += 1
        self._schema = Schema(
            run_id=self._run_id,
            schema_id=self.schema_id,
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
        grown_parameters: int,
        risk_level: int = 0,
    ) -> StatePacket:
        """The state at this boundary; its columns are read-only views over the live table."""
        budget = self._param_budget
        columns = self._executor.table.columns()
        measured: dict[str, Any] = {name: view.toreadonly() for name, view in columns.items()}
        measured |= self._executor.host_gain()
        if self.flops is not None:
            measured |= self.flops.told()
        return StatePacket(
            schema_id=self.schema_id,
            epoch=epoch,
            step=step,
            num_epochs=num_epochs,
            host_parameters=host_parameters,
            grown_parameters=grown_parameters,
            param_budget=max(_MIN_BUDGET, host_parameters) if budget is None else budget,
            trials_possible=self._executor.trials_waived is None,
            metrics=memoryview(array("d", metrics.values())).toreadonly(),
            risk_level=risk_level,
            **measured,
        )


def numbers_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that are numbers, as floats.

    Raises:
        ConfigError: it is no mapping.
    """
    if not isinstance(metrics, Mapping):
        raise ConfigError(
            f"metrics is a {type(metrics).__name__}; give a mapping from names to numbers"
        )
    found = {}
    for name, value in metrics.items():
        if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
            found[str(name)] = float(value.detach())
        elif isinstance(value, Real):
            try:
                found[str(name)] = float(value)
            except OverflowError:
                raise ConfigError(f"metric {name} is too large for a float; scale it") from None
    return found


def check_monitor(
    monitor: str, numbers: Mapping[str, float], earlier: Mapping[int, Mapping[str, float]]
) -> None:
    """Refuse a monitor that no epoch has logged; of the default one only a word is said.

    Args:
        monitor: the metric's name.
        numbers: metrics of this epoch.
        earlier: metrics of the epochs before, by epoch; validation may run every few epochs only.

    Raises:
        ConfigError: nobody logs a metric of that name.
    """
    if not numbers or monitor in numbers or any(monitor in known for known in earlier.values()):
        return
    sentence = (
        f"monitor is {monitor!r}, which was not logged; logged are {', '.join(numbers)}; "
        "set monitor to one of them"
    )
    if monitor != EsperConfig().monitor:
        raise ConfigError(sentence)
    if not earlier:
        _LOG.info(sentence)
