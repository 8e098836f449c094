"""How far a fault goes back while a graft is open, and when it is open no more."""

from __future__ import annotations

import math

import pytest

from kasmina.slots.slot import attached_seeds
from leyline import Cull, Decision, Stage
from tests.tolaria.plain_loops import (
    SCHEDULE,
    SEED,
    TRAIN,
    assert_same,
    copy_of,
    faults,
    listen,
    loss_fn,
)
from tests.tolaria.rollback.loops import NewLoop, grown, stage
from tests.tolaria.rollback.loops import new_loop as new_loop
from tolaria.rollback.recovery import TRUSTED_AFTER


@pytest.mark.parametrize(
    ("num_epochs", "was", "lost"),
    [
        (2, Stage.GRAFTING, "1 step lost"),
        (3, Stage.STABILIZATION, "1 epoch, 5 steps lost"),
        (4, Stage.EVALUATING, "2 epochs, 9 steps lost"),
    ],
)
def test_until_its_fine_tuning_a_fault_goes_back_to_before_the_graft(
    num_epochs: int, was: Stage, lost: str, new_loop: NewLoop
) -> None:
    """The host has the weights of the boundary that grafted the seed, and the report says how many
    epochs and steps that cost."""
    loop = grown(new_loop, 2)
    before = {n: v for n, v in copy_of(loop.model).items() if ".esper" not in n}
    for _ in range(num_epochs - 2):
        loop.epoch()
    assert stage(loop) is was
    assert loop.esper is not None
    events = listen(loop.esper)
    loop.step(poison=math.inf)
    assert_same(copy_of(loop.model), before)
    assert stage(loop) is Stage.ROLLED_BACK
    assert lost in faults(events)[0].action
    assert loop.esper.recovery.before_graft is None


def test_what_cannot_be_measured_is_trusted_after_a_while(new_loop: NewLoop) -> None:
    """Without held-out data a graft stays in EVALUATING for good. After three epochs there a fault
    costs the steps since the last boundary, not all that was learnt since the graft, and the seed
    stays."""
    loop = grown(new_loop, 4 + TRUSTED_AFTER)
    assert stage(loop) is Stage.EVALUATING
    assert loop.esper is not None
    assert loop.esper.recovery.before_graft is None
    events = listen(loop.esper)
    loop.step(poison=math.nan)
    assert "restored from memory; 1 step lost" in faults(events)[0].action
    assert stage(loop) is Stage.EVALUATING
    assert SEED in attached_seeds(loop.model)


def test_once_it_is_settled_the_state_before_the_graft_is_let_go(new_loop: NewLoop) -> None:
    """In FINE_TUNING a fault goes back to the last boundary only, and the seed leaves all the same:
    it is the last thing that changed."""
    loop = grown(new_loop, 2, schedule=SCHEDULE, loss_fn=loss_fn, data=(TRAIN, TRAIN))
    while stage(loop) is not Stage.FINE_TUNING:
        assert loop.parts.executor.table.stage(SEED) in (2, 3, 4, 5)
        loop.epoch()
    assert loop.esper is not None
    assert loop.esper.recovery.before_graft is None
    events = listen(loop.esper)
    loop.step(poison=math.nan)
    assert "restored from memory; 1 step lost" in faults(events)[0].action
    assert SEED not in attached_seeds(loop.model)


def test_a_veto_culls_and_loses_nothing(new_loop: NewLoop) -> None:
    """Only a fault rolls a run back: a seed that is culled leaves the host's training as it is."""
    loop = grown(new_loop, 4)
    assert loop.esper is not None
    events = listen(loop.esper)
    host = {n: v for n, v in copy_of(loop.model).items() if ".esper" not in n}
    executor = loop.parts.executor
    executor.table.put(SEED, counterfactual_gain=-1.0)
    veto = Cull(seed=SEED, cause="veto", embargo_epochs=1)
    executor.apply(Decision(epoch=4, policy="test", cause="veto", commands=(veto,)), 4)
    assert stage(loop) is Stage.CULLED
    assert_same(copy_of(loop.model), host)
    assert not faults(events)
