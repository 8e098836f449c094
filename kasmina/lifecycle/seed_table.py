"""The state table: one row per seed, stored as columns so a policy reads them without copies."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from kasmina.lifecycle.seed_columns import SeedColumns
from kasmina.lifecycle.seed_record import pack_record, unpack_record
from kasmina.lifecycle.seed_row import export_rows
from leyline import Evidence, OwnerError, Stage, allowed, limits, validate

_STAGES: Final = tuple(Stage)
_RING: Final = limits.HISTORY_LENGTH

Rows = NDArray[np.intp]
"""Row numbers, each at most once."""


class SeedTable:
    """Columns of every seed, their names, and a ring of the last transitions of each.

    A measurement that has not been made is NaN. Integer columns `site` and `blueprint` index the
    run's schema; -1 is none. Only the thread that made or adopted the table may change it.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self._rows: dict[str, int] = {}
        self._columns = SeedColumns()
        self.adopt()

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, seed: str) -> bool:
        return seed in self._rows

    @property
    def size_bytes(self) -> int:
        """Memory of the columns, room for later rows included; names are not counted."""
        return self._columns.size_bytes

    def adopt(self) -> None:
        """Make the calling thread the only one that may change the table from now on."""
        self._owner = threading.get_ident()
        self._owner_name = threading.current_thread().name

    def add(self, seed: str, site: int) -> None:
        """Append a dormant row.

        Raises:
            OwnerError: another thread owns the table; so for all that changes it.
        """
        assert seed not in self._rows
        self.check_owner()
        row = self._columns.append()
        self._columns.cells["site"][row] = site
        self._rows[seed] = row
        self.names.append(seed)

    # --- asking ------------------------------------------------------------------------------

    def row(self, seed: str) -> int:
        """Row number of a seed."""
        return self._rows[seed]

    def stage(self, seed: str) -> Stage:
        """The stage a seed is in."""
        stage: Stage = _STAGES[self._columns.cells["stage"][self._rows[seed]]]
        return stage

    def stages(self, rows: Rows | None = None) -> NDArray[np.int32]:
        """A copy of the stages of these rows, or of all."""
        stage = self._columns.column("stage")
        return stage.copy() if rows is None else stage[rows]

    def get(self, seed: str, column: str) -> Any:
        """One cell, as a Python number."""
        return self._columns.cells[column][self._rows[seed]]

    def in_stage(self, *stages: Stage) -> list[str]:
        """Names of the seeds in any of these stages, in row order."""
        return [self.names[row] for row in self.rows_in_stage(*stages)]

    def rows_in_stage(self, *stages: Stage) -> Rows:
        """Row numbers of the seeds in any of these stages."""
        wanted = sum(1 << stage for stage in set(stages))
        return np.flatnonzero(wanted >> self._columns.column("stage") & 1)

    def num_by_stage(self) -> dict[str, int]:
        """How many seeds are in each stage that has any, by stage name."""
        counts = np.bincount(self._columns.column("stage"), minlength=len(Stage))
        return {stage.name: int(counts[stage]) for stage in Stage if counts[stage]}

    def columns(self) -> Mapping[str, memoryview]:
        """Read-only views over the live columns of a state packet; `add` may leave them behind."""
        return self._columns.packet()

    def column(self, name: str) -> NDArray[Any]:
        """A live column, to be written by the owner; take it anew after `add`."""
        self.check_owner()
        return self._columns.column(name)

    def history(self, seed: str) -> list[tuple[Stage, Stage]]:
        """The last transitions of a seed, oldest first: (from, to)."""
        row = self._rows[seed]
        made = self._columns.cells["num_transitions"][row]
        slots = [n % _RING for n in range(max(0, made - _RING), made)]
        codes = [self._columns.ring_cells[row * _RING + slot] for slot in slots]
        return [(Stage(code >> 4), Stage(code & 15)) for code in codes]

    def parent(self, seed: str) -> Stage | None:
        """The stage a seed came from; None before its first transition."""
        row = self._rows[seed]
        made = self._columns.cells["num_transitions"][row]
        code = self._columns.ring_cells[row * _RING + (made - 1) % _RING]
        return _STAGES[code >> 4] if made else None

    def rows(self, seeds: Sequence[str] | None = None) -> NDArray[Any]:
        """The documented 128-byte rows (dtype ROW) of these seeds, or of all: a copy."""
        numbers = range(len(self)) if seeds is None else [self._rows[seed] for seed in seeds]
        return export_rows(self._columns, np.asarray(numbers, dtype=np.intp))

    def evidence(
        self, seed: str, *, trials_waived: bool, blueprint_proven: bool | None = None
    ) -> Evidence:
        """What the row says to the guards of the lifecycle; NaN becomes "not measured"."""
        row, cells = self._rows[seed], self._columns.cells
        gain = cells["counterfactual_gain"][row]
        return Evidence(
            epochs_in_stage=cells["epochs_in_stage"][row],
            blueprint_proven=blueprint_proven,
            trial_settled=trials_waived or not math.isnan(cells["trial_gain"][row]),
            alpha=cells["alpha"][row],
            counterfactual_gain=None if math.isnan(gain) else gain,
            embargo_epochs_left=cells["embargo_epochs_left"][row],
        )

    # --- changing ----------------------------------------------------------------------------

    def put(self, seed: str, **cells: float) -> None:
        """Write cells of one row."""
        self.check_owner()
        row = self._rows[seed]
        for column, value in cells.items():
            self._columns.cells[column][row] = value

    def advance(self, seed: str, to: Stage, evidence: Evidence) -> None:
        """Make one validated transition and remember it.

        Raises:
            LifecycleError: the lifecycle does not allow it now; nothing was changed.
        """
        self.check_owner()
        row, cells = self._rows[seed], self._columns.cells
        stage, num_transitions = cells["stage"], cells["num_transitions"]
        was = stage[row]
        validate(seed, _STAGES[was], to, evidence)
        made = num_transitions[row]
        self._columns.ring_cells[row * _RING + made % _RING] = was << 4 | to
        num_transitions[row] = made + 1
        stage[row] = to
        cells["epochs_in_stage"][row] = 0

    def advance_all(
        self,
        rows: Rows,
        to: Stage,
        *,
        trials_waived: bool = False,
        blueprint_proven: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.bool_]:
        """Make the same validated transition for many seeds at once.

        Args:
            rows: their row numbers, each at most once.
            to: the stage asked for.
            trials_waived: no trial can be run here, so none is waited for.
            blueprint_proven: for each of the rows, where a guard asks for it.

        Returns:
            For each of the rows whether it was refused; those rows are as they were.
        """
        self.check_owner()
        table = self._columns
        stage, made = table.column("stage")[rows], table.column("num_transitions")[rows]
        evidence: dict[str, Any] = {
            name: table.column(name)[rows]
            for name in ("epochs_in_stage", "alpha", "counterfactual_gain", "embargo_epochs_left")
        }
        settled = trials_waived | ~np.isnan(table.column("trial_gain")[rows])
        evidence |= {"trial_settled": settled, "blueprint_proven": blueprint_proven}
        may: NDArray[np.bool_] = allowed(stage, to, evidence)
        if not may.all():
            rows, stage, made = rows[may], stage[may], made[may]
        # Not %: numpy divides int32 ten times as fast as it takes the remainder.
        table.ring.reshape(-1)[rows * _RING + (made - made // _RING * _RING)] = stage << 4 | to
        table.column("num_transitions")[rows] = made + 1
        table.column("stage")[rows] = to
        table.column("epochs_in_stage")[rows] = 0
        return ~may

    def end_epoch(self) -> None:
        """Count one live epoch in every row's stage and off every embargo."""
        self.check_owner()
        epochs = self._columns.column("epochs_in_stage")
        np.add(epochs, 1, out=epochs)
        embargo = self._columns.column("embargo_epochs_left")
        np.subtract(embargo, embargo > 0, out=embargo)

    # --- keeping -----------------------------------------------------------------------------

    def record(self, seed: str, blueprint: str = "") -> bytes:
        """The row as a record that can be kept alone; see seed_record."""
        return pack_record(self._columns, self._rows[seed], seed, blueprint)

    def restore(self, record: bytes) -> str:
        """Put a recorded row back, added if the table does not have the seed; returns its name.

        Raises:
            CheckpointError: the record is damaged; nothing was changed.
        """
        saved = unpack_record(record)
        self.check_owner()
        if saved.seed not in self._rows:
            self.add(saved.seed, saved.integer("site"))
        saved.write_to(self._columns, self._rows[saved.seed])
        return saved.seed

    def state_dict(self) -> dict[str, Any]:
        """A copy of everything: names, and columns and history as CPU tensors."""
        copies = self._columns.state()
        history = torch.from_numpy(copies.pop("ring"))
        columns = {name: torch.from_numpy(column) for name, column in copies.items()}
        return {"names": list(self.names), "columns": columns, "history": history}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved table."""
        self.check_owner()
        arrays = {name: column.cpu().numpy() for name, column in state["columns"].items()}
        names = list(state["names"])
        columns = SeedColumns()
        columns.load({**arrays, "ring": state["history"].cpu().numpy()}, len(names))
        self._columns = columns
        self.names, self._rows = names, {name: row for row, name in enumerate(names)}

    def check_owner(self) -> None:
        """Refuse the calling thread if it may not change the table.

        Raises:
            OwnerError: another thread owns the table.
        """
        if threading.get_ident() != self._owner:
            raise OwnerError(
                f"the state table of {len(self)} seeds belongs to thread {self._owner_name!r} and "
                f"was to be changed by {threading.current_thread().name!r}; nothing was changed: "
                "call from its own thread, or call adopt() from the new one first"
            )
