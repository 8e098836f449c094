"""The documented row of a seed: 128 bytes, as the reference lays it out."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kasmina.lifecycle.seed_columns import SeedColumns
from leyline import limits

ROW: Final = np.dtype(
    [
        ("LIFECYCLE_STATE", np.int32),
        ("BLUEPRINT_ID", np.int32),
        ("EPOCHS_IN_STATE", np.int32),
        ("GRAFTING_STRATEGY", np.int32),
        ("PARENT_STATE", np.int32),
        ("CHECKPOINT_ID", np.int32),
        ("EVALUATION_SCORE", np.int32),
        ("ERROR_COUNT", np.int32),
        ("TRANSITIONS", np.int32, (limits.HISTORY_LENGTH, 2)),
        ("TRIAL_GAIN", np.float32),
        ("TRIAL_ERROR", np.float32),
        ("COUNTERFACTUAL_GAIN", np.float32),
        ("COUNTERFACTUAL_ERROR", np.float32),
    ]
)
"""Eight int32 variables, the last ten (from, to) pairs oldest first, four float32 metrics. -1 in a
state is "none"; NaN is "not measured"."""
SCORE_SCALE: Final = 1_000_000
"""EVALUATION_SCORE units for one unit of the loss."""
NOT_MEASURED: Final = -(2**31)
"""EVALUATION_SCORE of a seed whose counterfactual gain is not known."""
_COPIED: Final = {
    "LIFECYCLE_STATE": "stage",
    "BLUEPRINT_ID": "blueprint",
    "EPOCHS_IN_STATE": "epochs_in_stage",
    "GRAFTING_STRATEGY": "grafting_strategy",
    "CHECKPOINT_ID": "checkpoint_id",
    "ERROR_COUNT": "error_count",
    "TRIAL_GAIN": "trial_gain",
    "TRIAL_ERROR": "trial_error",
    "COUNTERFACTUAL_GAIN": "counterfactual_gain",
    "COUNTERFACTUAL_ERROR": "counterfactual_error",
}


def export_rows(columns: SeedColumns, rows: NDArray[np.intp]) -> NDArray[Any]:
    """A copy of these rows in the documented layout."""
    exported = np.empty(len(rows), dtype=ROW)
    for field, name in _COPIED.items():
        exported[field] = columns.column(name)[rows]
    pairs = history_pairs(columns, rows)
    exported["TRANSITIONS"] = pairs
    made = np.minimum(columns.column("num_transitions")[rows], limits.HISTORY_LENGTH)
    exported["PARENT_STATE"] = pairs[np.arange(len(rows)), np.maximum(made - 1, 0), 0]
    exported["EVALUATION_SCORE"] = fixed_point(columns.column("counterfactual_gain")[rows])
    return exported


def history_pairs(columns: SeedColumns, rows: NDArray[np.intp]) -> NDArray[np.int32]:
    """The last transitions of these rows, oldest first: int32 [rows, 10, 2], -1 where none."""
    made = columns.column("num_transitions")[rows][:, None]
    places = np.arange(limits.HISTORY_LENGTH)
    slots = (np.maximum(made - limits.HISTORY_LENGTH, 0) + places) % limits.HISTORY_LENGTH
    codes = np.take_along_axis(columns.ring[rows], slots, axis=1).astype(np.int32)
    pairs = np.stack([codes >> 4, codes & 15], axis=2)
    pairs[places >= made] = -1
    return pairs


def fixed_point(gain: NDArray[np.float32]) -> NDArray[np.int32]:
    """Gains as EVALUATION_SCORE: rounded, saturating at the ends of int32, NaN as NOT_MEASURED."""
    scaled = np.rint(gain.astype(np.float64) * SCORE_SCALE)
    limited = np.clip(scaled, NOT_MEASURED + 1, -(NOT_MEASURED + 1))
    return np.where(np.isnan(gain), NOT_MEASURED, limited).astype(np.int64).astype(np.int32)
