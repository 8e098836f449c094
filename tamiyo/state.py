"""What a policy is given: a state packet with its schema, read as rows of plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from typing import Any, Final

from leyline import COLUMN_FORMATS, Candidate, Schema, Stage, StatePacket

Place = tuple[str, int, str]
"""A site, the chunk of it, and the blueprint that is or was there."""
_COLUMNS: Final = tuple(name for name in COLUMN_FORMATS if name != "metrics")
assert not Stage.DORMANT, "what is dormant is passed over as what is 0"


@dataclass(frozen=True)
class SeedRow:
    """One seed that is not dormant. Measurements that were not made are None."""

    seed: str
    site: str
    blueprint: str
    stage: Stage
    epochs_in_stage: int
    grafting_strategy: int
    parameters: int
    alpha: float
    error_count: int
    embargo_epochs_left: int
    trial_steps: int
    trial_gain: float | None
    trial_error: float | None
    counterfactual_gain: float | None
    counterfactual_error: float | None

    @property
    def tried(self) -> bool:
        """Whether its trial has come to an end, good or bad."""
        return self.trial_steps > 0 or self.error_count > 0


@dataclass(frozen=True)
class State:
    """One boundary's state: the numbers of a packet under the names of its schema."""

    packet: StatePacket
    schema: Schema

    @cached_property
    def metrics(self) -> Mapping[str, float]:
        """The user's metrics of the epoch, by name."""
        return dict(zip(self.schema.metrics, self.packet.column("metrics").tolist(), strict=True))

    @cached_property
    def rows(self) -> tuple[SeedRow, ...]:
        """Every seed that is not dormant, in row order."""
        columns = {name: self.packet.column(name) for name in _COLUMNS}
        stages = columns["stage"].tolist()
        # Thousands may be dormant: none of them is looked at by name.
        return tuple(self._row(row, columns) for row in compress(range(len(stages)), stages))

    def in_stage(self, stage: Stage) -> list[SeedRow]:
        """The seeds in one stage, in row order."""
        return [row for row in self.rows if row.stage is stage]

    @property
    def budget_left(self) -> int:
        """Parameters that growth may still add."""
        return self.packet.param_budget - self.packet.grown_parameters

    def free_place(self, site: str, taken: set[str], chunk: int = 0, num_chunks: int = 1) -> str:
        """The name of the first free place at a chunk of a site, not among those taken."""
        number = chunk
        while f"{site}/{number}" in taken or f"{site}/{number}" in self._occupied:
            number += num_chunks
        return f"{site}/{number}"

    @cached_property
    def _occupied(self) -> frozenset[str]:
        return frozenset(row.seed for row in self.rows)

    @cached_property
    def num_chunks(self) -> Mapping[str, int]:
        """Equal parts of every site, by its name."""
        return {site.name: site.num_chunks for site in self.schema.sites}

    def place_of(self, row: SeedRow) -> Place:
        """Where a seed is, and as what."""
        number = int(row.seed.rpartition("/")[2])
        return row.site, number % self.num_chunks[row.site], row.blueprint

    @cached_property
    def candidates(self) -> Mapping[tuple[str, str], Candidate]:
        """What may be planted, by site and blueprint."""
        return {(each.site, each.blueprint): each for each in self.schema.candidates}

    def _row(self, row: int, columns: Mapping[str, memoryview]) -> SeedRow:
        def measured(name: str) -> float | None:
            value = cells[name]
            return None if math.isnan(value) else value

        cells: dict[str, Any] = {name: column[row] for name, column in columns.items()}
        return SeedRow(
            seed=self.schema.seeds[row],
            site=self.schema.sites[cells["site"]].name,
            blueprint=self.schema.blueprints[cells["blueprint"]],
            stage=Stage(cells["stage"]),
            epochs_in_stage=cells["epochs_in_stage"],
            grafting_strategy=cells["grafting_strategy"],
            parameters=cells["parameters"],
            alpha=cells["alpha"],
            error_count=cells["error_count"],
            embargo_epochs_left=cells["embargo_epochs_left"],
            trial_steps=cells["trial_steps"],
            trial_gain=measured("trial_gain"),
            trial_error=measured("trial_error"),
            counterfactual_gain=measured("counterfactual_gain"),
            counterfactual_error=measured("counterfactual_error"),
        )
