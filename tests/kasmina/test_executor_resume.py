"""The executor after a resume: ramps, births, and seeds that are of the host."""

from __future__ import annotations

import copy

import pytest

from kasmina import Executor, discover
from kasmina.slots.slot import every_seed
from kasmina.structure import match_structure
from leyline import Stage
from tests.kasmina.grower import (
    RAMP_STEPS,
    SEED,
    Grower,
    X,
    advance,
    cull,
    germinate,
)
from tests.kasmina.growing import (
    bits,
    state_bits,
)


@pytest.mark.parametrize("steps_before", range(RAMP_STEPS + 1))
def test_a_run_resumed_in_mid_ramp_goes_on_alike(grower: Grower, steps_before: int) -> None:
    """Same alphas, outputs and table as the run that was not interrupted."""
    grower.to(Stage.GRAFTING)
    for _ in range(steps_before):
        grower.executor.after_step()
    other = Grower()
    match_structure(other.model, grower.model.state_dict())
    other.model.load_state_dict(grower.model.state_dict())
    other.executor.load_state_dict(grower.executor.state_dict())
    other.epoch = grower.epoch
    for _ in range(RAMP_STEPS):
        assert other.picture()[:-1] == grower.picture()[:-1]
        assert bits(other.model(X)) == bits(grower.model(X))
        for each in (grower, other):
            each.executor.after_step()
    assert float(other.held().alpha) == 1.0
    assert not other.apply(advance(Stage.STABILIZATION))[0].refused


def test_a_seed_is_born_the_same_after_a_resume(grower: Grower) -> None:
    """Nothing of a trial is saved: the race of a resumed run gives the same gain and weights."""
    grower.to(Stage.TRAINING)
    other = Grower()
    other.executor.load_state_dict(grower.executor.state_dict())
    results = []
    for each in (grower, other):
        each.race()
        trial = each.executor.nursery.trial(SEED)
        assert trial is not None
        results.append((trial.gain, state_bits(trial.module.state_dict())))
    assert results[0] == results[1]


def test_seeds_of_an_earlier_run_are_host(grower: Grower) -> None:
    """A model that comes grown keeps its seeds: no row, not listed, never dropped or pushed out."""
    grower.to(Stage.FOSSILIZED)
    later = Executor(grower.model, rng_seed=9)
    later.grounds.open(discover(grower.model, (X,)))
    y = bits(grower.model(X))
    assert later.live_seeds() == {}
    assert later.withdraw_faulted(1, 1) == []
    assert bits(grower.model(X)) == y
    grower.executor = later
    taken, free = grower.apply(germinate(), germinate("body/1"))
    assert "an earlier run" in taken.refused
    assert (free.refused, SEED in later.table) == ("", False)
    grower.to(Stage.GRAFTING, "body/1")
    assert list(later.live_seeds()) == ["body/1"]
    assert bits(grower.model(X)) == y


def test_a_copy_that_the_model_keeps_of_itself_is_host(grower: Grower) -> None:
    """Its parameters count as grown; what is listed and taken out is the live seed alone."""
    grower.to(Stage.GRAFTING)
    size, live = grower.executor.grown_parameters(), grower.held()
    copied = copy.deepcopy(grower.model)
    members = dict(grower.model._modules)
    grower.model._modules.clear()  # the copy comes first
    grower.model._modules.update(best=copied, **members)
    assert grower.executor.grown_parameters() == 2 * size
    (seed,) = grower.executor.live_seeds().values()
    assert (seed.site, seed.parameters) == ("body", tuple(live.parameters()))
    every_seed(copied)[0].seed.fail("it broke")
    assert grower.executor.withdraw_faulted(grower.epoch, 1) == []
    grower.apply(cull())
    assert grower.executor.live_seeds() == {}
    assert grower.executor.withdraw_faulted(grower.epoch, 1) == []
    assert [held.site for held in every_seed(grower.model)] == ["best.body"]
