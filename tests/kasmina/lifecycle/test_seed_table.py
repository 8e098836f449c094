"""The seed table: live columns, a short memory, and no transition but those of the lifecycle."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kasmina import SeedTable
from leyline import COLUMN_FORMATS, TRANSITIONS, Evidence, LifecycleError, Stage, refusal
from leyline.limits import HISTORY_LENGTH, SEED_RECORD_BYTES

SATISFIED = Evidence(
    epochs_in_stage=1,
    blueprint_proven=True,
    trial_settled=True,
    alpha=1.0,
    counterfactual_gain=0.1,
    embargo_epochs_left=0,
)
IGNORANT = Evidence(epochs_in_stage=0)


def table_of(*seeds: str) -> SeedTable:
    table = SeedTable()
    for number, seed in enumerate(seeds):
        table.add(seed, site=number)
    return table


def cells(table: SeedTable) -> dict[str, bytes]:
    return {name: bytes(view) for name, view in table.columns().items()}


def test_a_new_row_is_dormant_and_unmeasured() -> None:
    """No blueprint (-1), no measurement (NaN), alpha 0, at the site given."""
    table = table_of("a/0", "b/0")
    assert table.stage("b/0") is Stage.DORMANT
    assert table.get("b/0", "site") == 1
    assert table.get("b/0", "blueprint") == -1
    assert table.get("b/0", "alpha") == 0.0
    for name in ("trial_gain", "trial_error", "counterfactual_gain", "counterfactual_error"):
        assert np.isnan(table.get("b/0", name))
    assert (len(table), "a/0" in table, "c/0" in table) == (2, True, False)
    assert table.row("b/0") == 1
    assert table.history("a/0") == []


def test_columns_are_live_views() -> None:
    """A view taken once shows later writes, in the contract's format, without a copy."""
    table = table_of("a/0", "b/0")
    views = table.columns()
    assert {name: view.format for name, view in views.items()} == {
        name: code for name, code in COLUMN_FORMATS.items() if name != "metrics"
    }
    table.put("b/0", alpha=0.5, trial_steps=7)
    table.advance("a/0", Stage.GERMINATED, IGNORANT)
    table.end_epoch()
    assert list(views["alpha"]) == [0.0, 0.5]
    assert list(views["trial_steps"]) == [0, 7]
    assert list(views["stage"]) == [1, 0]
    assert list(views["epochs_in_stage"]) == [1, 1]


def test_one_seed_costs_its_documented_bytes() -> None:
    """Eight int32 variables, ten transitions and four floats: a row is of that size, not more."""
    one, two = table_of("a/0"), table_of("a/0", "b/0")
    ring = HISTORY_LENGTH * 2 * 4
    columns = sum(map(len, cells(two).values())) - sum(map(len, cells(one).values()))
    assert ring + columns <= SEED_RECORD_BYTES + 32


def test_the_last_ten_transitions_are_remembered() -> None:
    """Oldest first; the eleventh pushes out the first."""
    table = table_of("a/0")
    lap = [Stage.GERMINATED, Stage.TRAINING, Stage.CANCELLED, Stage.DORMANT]
    path = [Stage.DORMANT, *lap * 4]
    made = list(itertools.pairwise(path))
    for number, (_, to) in enumerate(made, start=1):
        table.advance("a/0", to, SATISFIED)
        assert table.history("a/0") == made[:number][-HISTORY_LENGTH:]


@pytest.mark.parametrize("to", Stage)
def test_a_refused_transition_changes_nothing(to: Stage) -> None:
    """Row, other rows and memory are byte for byte as before, whatever was asked."""
    table = table_of("a/0", "b/0")
    table.advance("a/0", Stage.GERMINATED, IGNORANT)
    table.end_epoch()
    before = cells(table), table.history("a/0"), table.state_dict()["num_transitions"].tolist()
    if to is Stage.CANCELLED:
        return
    with pytest.raises(LifecycleError) as caught:
        table.advance("a/0", to, IGNORANT)
    assert (caught.value.seed, caught.value.was, caught.value.asked) == (
        "a/0",
        "GERMINATED",
        to.name,
    )
    after = cells(table), table.history("a/0"), table.state_dict()["num_transitions"].tolist()
    assert after == before


def test_stages_are_counted_and_listed() -> None:
    """in_stage gives names in row order, num_by_stage only stages that have seeds."""
    table = table_of("a/0", "b/0", "c/0")
    table.advance("c/0", Stage.GERMINATED, IGNORANT)
    table.advance("a/0", Stage.GERMINATED, IGNORANT)
    assert table.in_stage(Stage.GERMINATED) == ["a/0", "c/0"]
    assert table.in_stage(Stage.GERMINATED, Stage.DORMANT) == ["a/0", "b/0", "c/0"]
    assert table.num_by_stage() == {"DORMANT": 1, "GERMINATED": 2}


def test_epochs_and_embargos_are_counted_per_epoch() -> None:
    """A stay grows, an embargo shrinks to 0 and no further, a transition starts a new stay."""
    table = table_of("a/0", "b/0")
    table.put("a/0", embargo_epochs_left=2)
    for left in (1, 0, 0):
        table.end_epoch()
        assert table.get("a/0", "embargo_epochs_left") == left
    assert table.get("a/0", "epochs_in_stage") == 3
    table.advance("a/0", Stage.GERMINATED, IGNORANT)
    assert [table.get(seed, "epochs_in_stage") for seed in ("a/0", "b/0")] == [0, 3]


steps = st.lists(
    st.tuples(
        st.sampled_from(["a/0", "b/0", "c/0"]),
        st.sampled_from(Stage),
        st.builds(
            Evidence,
            epochs_in_stage=st.integers(0, 2),
            blueprint_proven=st.sampled_from([None, False, True]),
            trial_settled=st.sampled_from([None, False, True]),
            alpha=st.sampled_from([None, 0.0, 0.999, 1.0]),
            counterfactual_gain=st.sampled_from([None, -1.0, 1.0]),
            embargo_epochs_left=st.sampled_from([None, 0, 3]),
        ),
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_a_random_walk_follows_the_lifecycle_and_survives_a_save(
    walk: list[tuple[str, Stage, Evidence]],
) -> None:
    """Every transition made is in leyline's table and was not refused there; a copy is equal."""
    table = table_of("a/0", "b/0", "c/0")
    model = dict.fromkeys(table.names, Stage.DORMANT)
    memory: dict[str, list[tuple[Stage, Stage]]] = {name: [] for name in table.names}
    for seed, to, evidence in walk:
        expected = refusal(model[seed], to, evidence)
        if expected is not None:
            with pytest.raises(LifecycleError, match=re.escape(expected)):
                table.advance(seed, to, evidence)
            continue
        table.advance(seed, to, evidence)
        assert to in TRANSITIONS[model[seed]]
        memory[seed].append((model[seed], to))
        model[seed] = to
    assert {name: table.stage(name) for name in table.names} == model
    copied = SeedTable()
    copied.load_state_dict(table.state_dict())
    for name in table.names:
        assert copied.history(name) == table.history(name) == memory[name][-HISTORY_LENGTH:]
    assert (copied.names, cells(copied)) == (table.names, cells(table))


def test_a_saved_table_is_a_copy() -> None:
    """Neither the saver nor the loader shares memory with the saved state."""
    table = table_of("a/0")
    state = table.state_dict()
    table.put("a/0", alpha=0.5)
    assert state["columns"]["alpha"].tolist() == [0.0]
    copied = SeedTable()
    copied.load_state_dict(state)
    copied.put("a/0", alpha=0.25)
    assert state["columns"]["alpha"].tolist() == [0.0]
    assert isinstance(state["columns"]["alpha"], torch.Tensor)
    copied.add("b/0", site=4)
    assert copied.get("b/0", "site") == 4
