"""The seed table: live columns, a short memory, and no transition but those of the lifecycle."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kasmina import SeedTable
from leyline import (
    COLUMN_FORMATS,
    TRANSITIONS,
    Evidence,
    LifecycleError,
    OwnerError,
    Stage,
    refusal,
)
from leyline.limits import HISTORY_LENGTH, SEED_RECORD_BYTES
from tests.evidence import SATISFIED

IGNORANT = Evidence(epochs_in_stage=0)


def table_of(*seeds: str) -> SeedTable:
    table = SeedTable()
    for number, seed in enumerate(seeds):
        table.add(seed, site=number)
    return table


def cells(table: SeedTable) -> dict[str, bytes]:
    return {name: bytes(view) for name, view in table.columns().items()}


def bits(table: SeedTable) -> list[bytes]:
    state = table.state_dict()
    return [t.numpy().tobytes() for t in (*state["columns"].values(), state["history"])]


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
    assert all(view.readonly for view in views.values())
    table.put("b/0", alpha=0.5, trial_steps=7)
    table.advance("a/0", Stage.GERMINATED, IGNORANT)
    table.end_epoch()
    assert list(views["alpha"]) == [0.0, 0.5]
    assert list(views["trial_steps"]) == [0, 7]
    assert list(views["stage"]) == [1, 0]
    assert list(views["epochs_in_stage"]) == [1, 1]


def test_ten_thousand_seeds_take_no_more_than_one_and_a_half_megabytes() -> None:
    """Columns and ring, with the room kept for later rows; no later row costs a copy of all."""
    table = SeedTable()
    sizes = set()
    for number in range(10_000):
        table.add(f"a/{number}", site=0)
        sizes.add(table.size_bytes)
    assert table.size_bytes <= 1_500_000
    assert table.size_bytes / 10_000 <= SEED_RECORD_BYTES + 16
    assert len(sizes) <= 12


def test_rows_survive_growth() -> None:
    """Cells, transitions and measurements of early rows are there after thousands of later ones."""
    table, twin = table_of("a/0"), table_of("a/0")
    for each in (table, twin):
        each.advance("a/0", Stage.GERMINATED, IGNORANT)
        each.put("a/0", alpha=0.25, trial_gain=0.5, parameters=2**40)
        if each is table:
            for number in range(1, 3000):
                each.add(f"a/{number}", site=number)
        each.advance("a/0", Stage.CANCELLED, IGNORANT)
    assert table.history("a/0") == twin.history("a/0")
    for name, first in cells(twin).items():
        assert cells(table)[name][: len(first)] == first
    assert table.get("a/2999", "site") == 2999


def test_the_parent_is_where_the_seed_came_from() -> None:
    """None before the first transition, then the stage before this one, also past ten."""
    table = table_of("a/0")
    assert table.parent("a/0") is None
    lap = [Stage.GERMINATED, Stage.TRAINING, Stage.CANCELLED, Stage.DORMANT]
    for was, to in itertools.pairwise([Stage.DORMANT, *lap * 3]):
        table.advance("a/0", to, SATISFIED)
        assert table.parent("a/0") is was


def test_only_the_owner_may_change_the_table() -> None:
    """From a second thread every change is refused and changes nothing, until it adopts."""
    table = table_of("a/0", "b/0")
    state, record = table.state_dict(), table.record("a/0")
    changes: list[Callable[[], object]] = [
        lambda: table.add("c/0", site=0),
        lambda: table.put("a/0", alpha=1.0),
        lambda: table.advance("a/0", Stage.GERMINATED, SATISFIED),
        lambda: table.advance_all(np.arange(2), Stage.GERMINATED),
        lambda: table.end_epoch(),
        lambda: table.column("alpha"),
        lambda: table.restore(record),
        lambda: table.load_state_dict(state),
    ]
    before = cells(table), list(table.names), table.history("a/0")

    def refusals() -> list[str]:
        found = []
        for change in changes:
            with pytest.raises(
                OwnerError, match=r"belongs to thread 'MainThread'.*adopt"
            ) as caught:
                change()
            found.append(str(caught.value))
        assert table.stage("a/0") is Stage.DORMANT, "asking is anyone's right"
        table.adopt()
        table.put("a/0", alpha=0.5)
        return found

    with ThreadPoolExecutor(1, thread_name_prefix="guest") as pool:
        found = pool.submit(refusals).result()
    assert len(found) == len(changes)
    assert all("guest" in text for text in found)
    table.adopt()
    table.put("a/0", alpha=0.0)
    assert (cells(table), list(table.names), table.history("a/0")) == before


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
    before = cells(table), table.history("a/0"), bits(table)
    if to is Stage.CANCELLED:
        return
    with pytest.raises(LifecycleError) as caught:
        table.advance("a/0", to, IGNORANT)
    assert (caught.value.seed, caught.value.was, caught.value.asked) == (
        "a/0",
        "GERMINATED",
        to.name,
    )
    after = cells(table), table.history("a/0"), bits(table)
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
