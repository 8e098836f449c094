"""The state table: one row per seed, stored as columns so a policy reads them without copies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from leyline import COLUMN_FORMATS, Evidence, Stage, limits, validate

_MISSING: Final = frozenset(
    {"trial_gain", "trial_error", "counterfactual_gain", "counterfactual_error"}
)
_COLUMNS: Final = tuple(name for name in COLUMN_FORMATS if name != "metrics")


class SeedTable:
    """Columns of every seed, their names, and a ring of the last transitions of each.

    A measurement that has not been made is NaN. Integer columns `site` and `blueprint` index the
    run's schema; -1 is none.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self._rows: dict[str, int] = {}
        self._columns: dict[str, NDArray[Any]] = {
            name: np.empty(0, dtype=COLUMN_FORMATS[name]) for name in _COLUMNS
        }
        self._history = np.empty((0, limits.HISTORY_LENGTH, 2), dtype=np.int32)
        self._num_transitions = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, seed: str) -> bool:
        return seed in self._rows

    def add(self, seed: str, site: int) -> None:
        """Append a dormant row."""
        assert seed not in self._rows
        self._rows[seed] = len(self.names)
        self.names.append(seed)
        for name, column in self._columns.items():
            fill = np.nan if name in _MISSING else -1 if name == "blueprint" else 0
            self._columns[name] = np.append(column, np.asarray([fill], dtype=column.dtype))
        self._columns["site"][-1] = site
        blank = np.full((1, limits.HISTORY_LENGTH, 2), -1, dtype=np.int32)
        self._history = np.concatenate([self._history, blank])
        self._num_transitions = np.append(self._num_transitions, np.int64(0))

    def row(self, seed: str) -> int:
        """Row number of a seed."""
        return self._rows[seed]

    def stage(self, seed: str) -> Stage:
        """The stage a seed is in."""
        return Stage(int(self._columns["stage"][self._rows[seed]]))

    def get(self, seed: str, column: str) -> Any:
        """One cell, as a Python number."""
        return self._columns[column][self._rows[seed]].item()

    def put(self, seed: str, **cells: float) -> None:
        """Write cells of one row."""
        for column, value in cells.items():
            self._columns[column][self._rows[seed]] = value

    def in_stage(self, *stages: Stage) -> list[str]:
        """Names of the seeds in any of these stages, in row order."""
        wanted = np.isin(self._columns["stage"], [int(stage) for stage in stages])
        return [self.names[row] for row in np.flatnonzero(wanted)]

    def num_by_stage(self) -> dict[str, int]:
        """How many seeds are in each stage that has any, by stage name."""
        counts = np.bincount(self._columns["stage"], minlength=len(Stage))
        return {stage.name: int(counts[stage]) for stage in Stage if counts[stage]}

    def columns(self) -> Mapping[str, memoryview]:
        """Views over the live columns, for a state packet."""
        return {name: column.data for name, column in self._columns.items()}

    def history(self, seed: str) -> list[tuple[Stage, Stage]]:
        """The last transitions of a seed, oldest first: (from, to)."""
        row = self._rows[seed]
        count = int(self._num_transitions[row])
        first = max(0, count - limits.HISTORY_LENGTH)
        ring = self._history[row]
        slots = [n % limits.HISTORY_LENGTH for n in range(first, count)]
        return [(Stage(int(ring[slot][0])), Stage(int(ring[slot][1]))) for slot in slots]

    def evidence(
        self, seed: str, *, trials_waived: bool, blueprint_proven: bool | None = None
    ) -> Evidence:
        """What the row says to the guards of the lifecycle; NaN becomes "not measured"."""
        gain = self.get(seed, "counterfactual_gain")
        measured = not math.isnan(self.get(seed, "trial_gain"))
        return Evidence(
            epochs_in_stage=self.get(seed, "epochs_in_stage"),
            blueprint_proven=blueprint_proven,
            trial_settled=measured or trials_waived,
            alpha=self.get(seed, "alpha"),
            counterfactual_gain=None if math.isnan(gain) else gain,
            embargo_epochs_left=self.get(seed, "embargo_epochs_left"),
        )

    def advance(self, seed: str, to: Stage, evidence: Evidence) -> None:
        """Make one validated transition and remember it.

        Raises:
            LifecycleError: the lifecycle does not allow it now; nothing was changed.
        """
        was = self.stage(seed)
        validate(seed, was, to, evidence)
        row = self._rows[seed]
        slot = int(self._num_transitions[row]) % limits.HISTORY_LENGTH
        self._history[row, slot] = int(was), int(to)
        self._num_transitions[row] += 1
        self._columns["stage"][row] = int(to)
        self._columns["epochs_in_stage"][row] = 0

    def end_epoch(self) -> None:
        """Count one live epoch in every row's stage and off every embargo."""
        self._columns["epochs_in_stage"] += 1
        embargo = self._columns["embargo_epochs_left"]
        np.maximum(embargo - 1, 0, out=embargo)

    def state_dict(self) -> dict[str, Any]:
        """A copy of everything: names, and columns, history and counts as CPU tensors."""
        return {
            "names": list(self.names),
            "columns": {n: torch.from_numpy(c.copy()) for n, c in self._columns.items()},
            "history": torch.from_numpy(self._history.copy()),
            "num_transitions": torch.from_numpy(self._num_transitions.copy()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved table."""
        self.names = list(state["names"])
        self._rows = {name: row for row, name in enumerate(self.names)}
        for name in _COLUMNS:
            self._columns[name] = state["columns"][name].cpu().numpy().copy()
        self._history = state["history"].cpu().numpy().copy()
        self._num_transitions = state["num_transitions"].cpu().numpy().copy()
