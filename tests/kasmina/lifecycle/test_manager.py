"""The lifecycle manager: one way for every transition, told, recorded and counted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from torch import nn

from kasmina import Executor, MemoryRecords, discover, unpack_record
from kasmina.slots.slot import attached_seeds
from leyline import BlueprintError, CheckpointError, LifecycleMetrics, SeedReport, SiteError, Stage
from tests.kasmina.grower import SEED, Grower, X, advance, cull, germinate


def newest(grower: Grower, seed: str = SEED) -> Any:
    return unpack_record(grower.executor.lifecycle.sink.records(seed)[0])


def ids(grower: Grower) -> list[int]:
    table = grower.table
    return [table.get(seed, "checkpoint_id") for seed in table.names]


def test_every_transition_of_a_life_is_told_and_recorded(grower: Grower) -> None:
    """The callback hears all of them in order, after the row moved; each has a record of its own,
    whose id rises, which holds the row as the transition left it, and the one before is kept."""
    heard: list[tuple[int, int, int]] = []

    def listen(report: SeedReport) -> None:
        assert grower.stage() == report.now
        record = newest(grower)
        assert record.row().tobytes() == grower.table.rows([SEED]).tobytes()
        assert (record.seed, record.site, record.blueprint) == (SEED, "body", "bottleneck_mlp")
        heard.append((report.was, report.now, record.checkpoint_id))

    grower.executor.lifecycle.on_transition(listen)
    grower.to(Stage.FOSSILIZED)
    assert heard == [(n, n + 1, n + 1) for n in range(7)]
    kept = [unpack_record(r) for r in grower.executor.lifecycle.sink.records(SEED)]
    assert [record.checkpoint_id for record in kept] == [7, 6] == [ids(grower)[0], 6]
    assert [record.integer("stage") for record in kept] == [7, 6]


def test_a_handle_takes_its_callback_back(grower: Grower) -> None:
    """Removed it hears nothing more, also when removed while it is being told; others go on."""
    first: list[int] = []
    second: list[int] = []
    lifecycle = grower.executor.lifecycle

    def once(report: SeedReport) -> None:
        first.append(report.now)
        handle.remove()

    handle = lifecycle.on_transition(once)
    lifecycle.on_transition(lambda report: second.append(report.now))
    grower.to(Stage.TRAINING)
    handle.remove()
    assert (first, second) == ([1], [1, 2])


def test_what_a_callback_raises_is_contained_and_named(grower: Grower) -> None:
    """The transition stands, the other callbacks hear of it, and the fault is said once."""
    heard: list[int] = []

    def careless(report: SeedReport) -> None:
        raise KeyError("no luck")

    lifecycle = grower.executor.lifecycle
    lifecycle.on_transition(careless)
    lifecycle.on_transition(lambda report: heard.append(report.now))
    (report,) = grower.apply(germinate())
    assert (report.refused, grower.stage(), heard) == ("", Stage.GERMINATED, [1])
    (fault,) = lifecycle.take_callback_faults()
    assert "careless" in fault
    assert f"{SEED}: KeyError: 'no luck'" in fault
    assert lifecycle.take_callback_faults() == []


def test_a_refused_request_is_neither_told_nor_recorded(grower: Grower) -> None:
    """No callback, no record, no id; the row stays; the refusal is counted."""
    grower.to(Stage.TRAINING)
    heard: list[SeedReport] = []
    grower.executor.lifecycle.on_transition(heard.append)
    before = grower.picture(), grower.executor.lifecycle.sink.records(SEED)
    assert grower.apply(advance(Stage.FOSSILIZED))[0].refused
    grower.race()
    grower.model.body.forward = nn.functional.relu  # type: ignore[method-assign] # it refuses seeds
    raced = grower.picture()
    assert grower.apply(advance(Stage.GRAFTING))[0].refused
    assert grower.picture() == raced
    assert grower.executor.lifecycle.sink.records(SEED) == before[1]
    assert heard == []
    assert grower.executor.lifecycle.take_metrics(3, 0).refusals == 2


def test_metrics_sum_up_what_happened_between_two_boundaries(grower: Grower) -> None:
    """Distribution and alpha are of now; transitions and refusals since last asked; records of all
    the run."""
    lifecycle = grower.executor.lifecycle
    grower.to(Stage.GRAFTING)
    grower.executor.after_step()
    grower.apply(germinate("head/0", "low_rank"), germinate("nowhere/0"))
    expected = LifecycleMetrics(
        epoch=4,
        stages={"GERMINATED": 1, "GRAFTING": 1},
        transitions=4,
        mean_alpha=0.25,
        seed_checkpoints=4,
        faults=2,
        refusals=1,
    )
    assert lifecycle.take_metrics(4, 2) == expected
    grower.apply(cull())
    later = lifecycle.take_metrics(5, 0)
    assert (later.transitions, later.refusals, later.seed_checkpoints) == (1, 0, 5)
    assert math.isnan(later.mean_alpha)


def test_ids_go_on_rising_after_a_resume(grower: Grower) -> None:
    """Neither an older table nor an older sink makes an id appear twice."""
    grower.to(Stage.TRAINING)
    saved = grower.executor.state_dict()
    grower.apply(advance(Stage.CANCELLED))
    assert ids(grower) == [3]
    grower.executor.load_state_dict(saved)
    grower.apply(advance(Stage.CANCELLED))
    assert ids(grower) == [4]
    for records, expected in ((MemoryRecords(), 3), (grower.executor.lifecycle.sink, 5)):
        other = Grower()
        other.executor = Executor(other.model, rng_seed=1, records=records)
        other.executor.grounds.open(discover(other.model, (X,)))
        other.executor.load_state_dict(saved)
        assert other.executor.lifecycle.take_metrics(1, 0).seed_checkpoints == 2
        other.apply(advance(Stage.CANCELLED))
        assert ids(other) == [expected]


def test_one_seed_is_restored_alone(grower: Grower) -> None:
    """Its row is that of the record to the bit, under this run's numbers; others stay."""
    grower.to(Stage.TRAINING)
    grower.to(Stage.TRAINING, "head/0", "low_rank")
    lifecycle = grower.executor.lifecycle
    record = lifecycle.sink.records(SEED)[0]
    other = grower.table.rows(["head/0"])
    grower.race()
    grower.apply(advance(Stage.CANCELLED))
    assert lifecycle.restore(record) == SEED
    assert grower.table.rows([SEED]).tobytes() == unpack_record(record).row().tobytes()
    assert np.isnan(grower.table.get(SEED, "trial_gain"))
    assert grower.table.rows(["head/0"])["LIFECYCLE_STATE"] == other["LIFECYCLE_STATE"]
    assert attached_seeds(grower.model) == {}
    assert grower.executor.prove(9) == []
    grower.race()
    assert not grower.apply(advance(Stage.GRAFTING))[0].refused


@pytest.mark.parametrize(
    ("seed", "blueprint", "error"),
    [("nowhere/0", "low_rank", SiteError), ("body/0", "nonsense", BlueprintError)],
)
def test_a_record_of_another_model_is_refused(
    grower: Grower, seed: str, blueprint: str, error: type[Exception]
) -> None:
    """Its site or blueprint is named, and nothing is changed; nor by a damaged one."""
    grower.to(Stage.TRAINING)
    stranger = Grower()
    stranger.table.add(seed, site=0)
    before = grower.picture()
    with pytest.raises(error):
        grower.executor.lifecycle.restore(stranger.table.record(seed, blueprint))
    with pytest.raises(CheckpointError):
        grower.executor.lifecycle.restore(b"no record")
    assert grower.picture() == before
