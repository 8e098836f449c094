"""Seed columns: the memory of the state table, which grows by doubling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from leyline import COLUMN_FORMATS, Stage, limits

INTEGERS: Final = (
    "stage",
    "blueprint",
    "epochs_in_stage",
    "grafting_strategy",
    "checkpoint_id",
    "error_count",
    "site",
    "embargo_epochs_left",
    "trial_steps",
    "birth_epoch",
    "num_transitions",
)
"""int32 columns."""
FLOATS: Final = (
    "alpha",
    "trial_gain",
    "trial_error",
    "counterfactual_gain",
    "counterfactual_error",
)
"""float32 columns."""
_FILL: Final = {"blueprint": -1, **dict.fromkeys(FLOATS[1:], np.nan)}
_CAPACITY: Final = 16
_STAGES: Final = [int(stage) for stage in Stage]


class SeedColumns:
    """Columns of equal length over three blocks of memory; views are left behind when they grow.

    `block` holds the int32 columns and the float32 columns (as their bits), `parameters` is int64,
    `ring` holds ten bytes for each row: its last transitions, `was << 4 | to`, 0 for none.
    """

    def __init__(self) -> None:
        self.size = 0
        self._packet: dict[str, memoryview] = {}
        self._new_blocks(_CAPACITY)

    @property
    def size_bytes(self) -> int:
        """Memory that is allocated, room for later rows included."""
        return self.block.nbytes + self.parameters.nbytes + self.ring.nbytes

    def append(self) -> int:
        """Add a row of defaults: 0, no blueprint (-1), no measurement (NaN); returns its number."""
        if self.size == self.capacity:
            block, parameters, ring = self.block[:, : self.size], self.parameters, self.ring
            self._new_blocks(2 * self.size)
            self.block[:, : self.size], self.parameters[: self.size] = block, parameters
            self.ring[: self.size] = ring
        for name, value in _FILL.items():
            self.cells[name][self.size] = value
        self.size += 1
        self._packet = {}
        return self.size - 1

    def column(self, name: str) -> NDArray[Any]:
        """The rows in use of one column."""
        return self._arrays[name][: self.size]

    def packet(self) -> Mapping[str, memoryview]:
        """Read-only views of the columns that a state packet has, in its order."""
        if not self._packet:
            names = (name for name in COLUMN_FORMATS if name != "metrics")
            self._packet.update((name, self.column(name).data.toreadonly()) for name in names)
        return self._packet

    def state(self) -> dict[str, NDArray[Any]]:
        """Copies of everything in use, by name."""
        copies = {name: self.column(name).copy() for name in self._arrays}
        return {**copies, "ring": self.ring[: self.size].copy()}

    def load(self, state: Mapping[str, NDArray[Any]], size: int) -> None:
        """Take over copies of so many rows.

        Raises:
            ValueError: a column is of another length or type, or names a stage that there is not.
        """
        for name, array in self._arrays.items():
            held = state[name]
            if held.shape != (size,) or held.dtype != array.dtype:
                raise ValueError(
                    f"column {name!r} has {held.dtype} {held.shape}, not {array.dtype} {(size,)}"
                )
        if not np.isin(state["stage"], _STAGES).all():
            raise ValueError(f"the stages are {state['stage'][:10].tolist()}, not of {_STAGES}")
        if not (state["num_transitions"] >= 0).all():
            raise ValueError("a number of transitions is negative")
        self._new_blocks(max(_CAPACITY, size))
        self.size = size
        for name in self._arrays:
            self.column(name)[:] = state[name]
        self.ring[:size] = state["ring"]

    def _new_blocks(self, capacity: int) -> None:
        self.capacity = capacity
        self.block = np.zeros((len(INTEGERS) + len(FLOATS), capacity), dtype=np.int32)
        self.parameters = np.zeros(capacity, dtype=COLUMN_FORMATS["parameters"])
        self.ring = np.zeros((capacity, limits.HISTORY_LENGTH), dtype=np.uint8)
        self._arrays: dict[str, NDArray[Any]] = dict(zip(INTEGERS, self.block, strict=False))
        floats = self.block[len(INTEGERS) :].view(np.float32)
        self._arrays.update(zip(FLOATS, floats, strict=True), parameters=self.parameters)
        # A memoryview reads and writes one cell five times as fast as an array does.
        self.cells: dict[str, Any] = {name: array.data for name, array in self._arrays.items()}
        self.block_cells: Any = self.block.reshape(-1).data
        self.ring_cells: Any = self.ring.reshape(-1).data
        self._packet = {}
