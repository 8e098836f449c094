"""Effects: each transition does to the model what it is for, to its own seed alone."""

from __future__ import annotations

import math

import kasmina
from kasmina.slots.held_seeds import HeldSeeds
from kasmina.structure import match_structure
from leyline import Stage
from tests.kasmina.grower import SEED, Grower, advance, cull, germinate


def test_moments_go_with_the_seed_they_belong_to(grower: Grower) -> None:
    """A graft pulled out before the optimizer took them leaves none for the place's next seed."""
    grower.to(Stage.TRAINING)
    grower.race()
    grower.apply(advance(Stage.GRAFTING), cull())
    assert grower.stage() is Stage.ROLLED_BACK
    assert len(grower.executor.take_moments(SEED)) == 0


def test_an_undone_graft_leaves_no_moments_for_the_next(grower: Grower) -> None:
    """A seed that is grafted again without a trial, and so with fresh weights, gets none."""
    grower.to(Stage.TRAINING)
    grower.race()
    state, held = grower.executor.state_dict(), HeldSeeds(grower.model)
    grower.apply(advance(Stage.GRAFTING))
    held.restore()
    grower.executor.load_state_dict(state)
    assert not grower.apply(advance(Stage.GRAFTING))[-1].refused
    assert grower.stage() is Stage.GRAFTING
    assert len(grower.executor.take_moments(SEED)) == 0


def test_a_place_knows_nothing_of_its_last_seed(grower: Grower) -> None:
    """Gains, errors, steps and alpha of the seed before are gone once another is planted."""
    grower.to(Stage.TRAINING)
    grower.race()
    grower.table.put(SEED, counterfactual_gain=1.0, counterfactual_error=0.5, error_count=3)
    grower.apply(cull(epochs=0))
    assert not grower.apply(germinate(blueprint="low_rank"))[-1].refused
    for name in ("trial_gain", "trial_error", "counterfactual_gain", "counterfactual_error"):
        assert math.isnan(grower.table.get(SEED, name))
    for name in ("trial_steps", "error_count", "alpha"):
        assert grower.table.get(SEED, name) == 0


def test_a_seed_grafted_beside_a_ramp_has_its_own(grower: Grower) -> None:
    """The alpha of one that comes later moves in its module too, from 0 to 1 in its own steps."""
    grower.to(Stage.GRAFTING)
    grower.ramp()
    grower.to(Stage.GRAFTING, "head/0", "low_rank")
    grower.executor.after_step()
    assert float(grower.held().alpha) == 1.0
    assert float(grower.held("head/0").alpha) == grower.table.get("head/0", "alpha") == 0.25


def test_ramps_go_on_in_the_modules_that_are_there_now(grower: Grower) -> None:
    """A model whose seeds were built again, as by loading a checkpoint, has them moved on."""
    grower.to(Stage.GRAFTING)
    grower.executor.after_step()
    saved, weights = grower.executor.state_dict(), grower.model.state_dict()
    before = grower.held()
    kasmina.detach(grower.model)
    match_structure(grower.model, weights)
    grower.model.load_state_dict(weights)
    grower.executor.load_state_dict(saved)
    grower.executor.after_step()
    assert grower.held() is not before
    assert float(grower.held().alpha) == 0.5
