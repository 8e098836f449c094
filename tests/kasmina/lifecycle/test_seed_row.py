"""The documented row: its layout, its order of history, and its fixed-point score."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasmina import ROW, SCORE_SCALE, SeedTable
from kasmina.lifecycle.seed_row import NOT_MEASURED, fixed_point
from leyline import Stage
from leyline.limits import SEED_RECORD_BYTES
from tests.evidence import SATISFIED

ORDER = [
    "LIFECYCLE_STATE",
    "BLUEPRINT_ID",
    "EPOCHS_IN_STATE",
    "GRAFTING_STRATEGY",
    "PARENT_STATE",
    "CHECKPOINT_ID",
    "EVALUATION_SCORE",
    "ERROR_COUNT",
]


def test_the_layout_is_the_documented_one() -> None:
    """Eight int32 in the reference's order, 10 x 2 int32, four float32: 128 bytes, no gaps."""
    assert ROW.itemsize == SEED_RECORD_BYTES == 128
    names = list(ROW.names or ())
    assert names[:8] == ORDER
    offsets = [ROW.fields[name][1] for name in names] if ROW.fields else []
    assert offsets == [*range(0, 32, 4), 32, 112, 116, 120, 124]
    assert ROW["TRANSITIONS"].shape == (10, 2)


@pytest.mark.parametrize("num_moves", [0, 1, 3, 9, 10, 11, 25])
def test_a_row_says_what_the_table_says(num_moves: int) -> None:
    """Every variable, the history oldest first with -1 behind it, and the parent."""
    table = SeedTable()
    table.add("other/0", site=0)
    table.add("a/0", site=3)
    lap = [Stage.GERMINATED, Stage.TRAINING, Stage.CANCELLED, Stage.DORMANT]
    for to in itertools.islice(itertools.cycle(lap), num_moves):
        table.advance("a/0", to, SATISFIED)
    table.put("a/0", blueprint=4, epochs_in_stage=6, grafting_strategy=2, error_count=7)
    table.put("a/0", checkpoint_id=99, trial_gain=0.5, counterfactual_gain=-1.25)
    (row,) = table.rows(["a/0"])
    parent = table.parent("a/0")
    assert [int(row[name]) for name in ORDER] == [
        *(int(table.stage("a/0")), 4, 6, 2),
        *(-1 if parent is None else int(parent), 99, -1_250_000, 7),
    ]
    pairs = [[int(was), int(to)] for was, to in table.history("a/0")]
    assert row["TRANSITIONS"].tolist() == pairs + [[-1, -1]] * (10 - len(pairs))
    floats = ["TRIAL_GAIN", "TRIAL_ERROR", "COUNTERFACTUAL_GAIN", "COUNTERFACTUAL_ERROR"]
    assert str([float(row[name]) for name in floats]) == "[0.5, nan, -1.25, nan]"
    assert table.rows().tobytes() == table.rows(["other/0", "a/0"]).tobytes()
    assert table.rows(["other/0"])["EVALUATION_SCORE"] == NOT_MEASURED


@given(st.floats(width=32))
def test_the_score_is_the_nearest_millionth_and_saturates(gain: float) -> None:
    """Rounded within half a unit where it fits, at the ends of int32 where not, NaN apart."""
    score = int(fixed_point(np.array([gain], dtype=np.float32))[0])
    if math.isnan(gain):
        assert score == NOT_MEASURED
    elif abs(gain * SCORE_SCALE) >= 2**31 - 1:
        assert score == int(math.copysign(2**31 - 1, gain))
    else:
        assert abs(score - gain * SCORE_SCALE) <= 0.5
