"""Transitions in bulk: row by row the same answer, and the same row, as one at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kasmina import SeedTable
from leyline import LIFECYCLE, LifecycleError, Stage

NAN = float("nan")


def placed(seed: str, stage: Stage, table: SeedTable) -> None:
    """A row put into a stage as if it had been led there."""
    table.add(seed, site=0)
    table.put(seed, stage=stage)


def bits(table: SeedTable) -> list[bytes]:
    state = table.state_dict()
    return [t.numpy().tobytes() for t in (*state["columns"].values(), state["history"])]


def one_by_one(
    table: SeedTable, rows: list[int], to: Stage, waived: bool, proven: list[bool]
) -> list[bool]:
    refused = []
    for row, fits in zip(rows, proven, strict=True):
        seed = table.names[row]
        evidence = table.evidence(seed, trials_waived=waived, blueprint_proven=fits)
        try:
            table.advance(seed, to, evidence)
        except LifecycleError:
            refused.append(True)
        else:
            refused.append(False)
    return refused


@pytest.mark.parametrize("to", Stage)
@pytest.mark.parametrize("was", Stage)
def test_every_pair(was: Stage, to: Stage) -> None:
    """All 121: measured, too early, and not measured; both ways refuse alike."""
    single, bulk = SeedTable(), SeedTable()
    for table in (single, bulk):
        for seed in ("good/0", "new/0", "unmeasured/0"):
            placed(seed, was, table)
        table.put("good/0", epochs_in_stage=1, alpha=1.0, trial_gain=0.1, counterfactual_gain=-0.5)
        table.put("new/0", alpha=1.0, trial_gain=0.1, counterfactual_gain=-0.5)
        table.put("unmeasured/0", epochs_in_stage=1, embargo_epochs_left=2)
    proven = [True, True, False]
    refused = bulk.advance_all(np.arange(3), to, blueprint_proven=np.array(proven))
    assert refused.tolist() == one_by_one(single, [0, 1, 2], to, False, proven)
    assert refused[0] == (to not in LIFECYCLE[was].leaves_to)
    assert bits(bulk) == bits(single)


def test_a_guard_without_its_column_refuses() -> None:
    """Nobody said whether the blueprints are proven: none goes on to TRAINING, all may cancel."""
    table = SeedTable()
    for number in range(4):
        placed(f"a/{number}", Stage.GERMINATED, table)
    before = bits(table)
    assert table.advance_all(np.arange(4), Stage.TRAINING).all()
    assert bits(table) == before
    assert not table.advance_all(np.arange(4), Stage.CANCELLED).any()
    assert table.in_stage(Stage.CANCELLED) == table.names


rows_of_any_kind = st.lists(
    st.fixed_dictionaries(
        {
            "stage": st.sampled_from(Stage),
            "epochs_in_stage": st.integers(0, 2),
            "alpha": st.sampled_from([0.0, 0.5, 1.0, NAN]),
            "trial_gain": st.sampled_from([NAN, 0.5]),
            "counterfactual_gain": st.sampled_from([NAN, -1.0, float("inf")]),
            "embargo_epochs_left": st.sampled_from([0, 3]),
            "num_transitions": st.integers(0, 25),
        }
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(rows_of_any_kind, st.lists(st.sampled_from(Stage), max_size=6), st.booleans(), st.data())
def test_any_rows(
    contents: list[dict[str, float]], asked: list[Stage], waived: bool, data: st.DataObject
) -> None:
    """Whatever the rows hold, and whichever of them are asked: equal to the last bit."""
    single, bulk = SeedTable(), SeedTable()
    for table in (single, bulk):
        for number, row in enumerate(contents):
            table.add(f"a/{number}", site=number)
            table.put(f"a/{number}", **row)
    for to in asked:
        numbers = st.lists(st.integers(0, len(contents) - 1), unique=True)
        rows = data.draw(numbers)
        proven = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
        refused = bulk.advance_all(
            np.array(rows, dtype=np.intp),
            to,
            trials_waived=waived,
            blueprint_proven=np.array(proven, dtype=np.bool_),
        )
        assert refused.tolist() == one_by_one(single, rows, to, waived, proven)
        assert bits(bulk) == bits(single)
