"""The state: a packet's numbers under the names of its schema."""

from __future__ import annotations

import math
from dataclasses import asdict

from hypothesis import given, settings

from leyline import Stage
from tamiyo import State
from tests.tamiyo.boundaries import (
    NAN,
    Row,
    boundaries,
    boundary,
    grafted,
    rows,
    sent,
    state,
    tried,
)

MEASURED = ("trial_gain", "trial_error", "counterfactual_gain", "counterfactual_error")


@settings(max_examples=50)
@given(rows())
def test_rows_are_what_was_put_in(given_rows: tuple[Row, ...]) -> None:
    """Every row that is not dormant is read back cell by cell; not measured is None, never NaN."""
    expected = [row for row in given_rows if row.stage is not Stage.DORMANT]
    found = State(*boundary(*given_rows)).rows
    assert [row.seed for row in found] == [row.seed for row in expected]
    for row, known in zip(found, expected, strict=True):
        assert row.site == known.site
        for name, value in asdict(known).items():
            if name in MEASURED and math.isnan(value):
                value = None
            assert getattr(row, name) == value, name


@settings(max_examples=50)
@given(boundaries())
def test_a_journey_as_bytes_changes_nothing(at: tuple) -> None:  # type: ignore[type-arg] # a packet and a schema
    """A decoded packet and schema give the same rows, metrics and budget."""
    here, there = State(*at), State(*sent(*at))
    assert there.rows == here.rows
    assert there.metrics == here.metrics
    assert there.budget_left == here.budget_left
    assert there.schema == here.schema


def test_no_seeds() -> None:
    """A run in which nothing was ever planted has a state too."""
    empty = State(*sent(*boundary()))
    assert empty.rows == ()
    assert empty.in_stage(Stage.TRAINING) == []
    assert empty.metrics == {"loss": 0.5, "accuracy": 0.75}


def test_free_place() -> None:
    """The first number at a site that no seed has and nobody has taken; dormant rows are free."""
    known = state(Row("block1/0"), tried("block1/1", 0.1), grafted("block1/2", Stage.FOSSILIZED))
    assert known.free_place("block1", set()) == "block1/0"
    assert known.free_place("block1", {"block1/0"}) == "block1/3"
    assert known.free_place("block2", set()) == "block2/0"


def test_an_embargoed_place_is_not_free() -> None:
    """A culled seed's place stays taken until the executor has released it."""
    culled = Row("block1/0", stage=Stage.CULLED, embargo_epochs_left=3)
    assert state(culled).free_place("block1", set()) == "block1/1"


def test_budget_left() -> None:
    """What growth may still add is the budget less what it has added."""
    assert state(grown_parameters=300, param_budget=1000).budget_left == 700


def test_tried() -> None:
    """A trial has come to an end when it has made its steps or failed, with a gain or without:
    one that could not be measured must not be waited for.
    """
    known = state(
        Row("block1/0", stage=Stage.TRAINING),
        tried("block1/1", -0.5),
        tried("block1/2", NAN),
        Row("block1/3", stage=Stage.TRAINING, error_count=1),
    )
    assert [row.tried for row in known.rows] == [False, True, True, True]
