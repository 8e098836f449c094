"""Rollbacks among rollbacks: grafts that overlap, counts over a resume, checkpoints from before."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from kasmina.slots.slot import attached_seeds
from leyline import NonFiniteError, Stage
from tests.tolaria.plain_loops import SEED, faults, listen
from tests.tolaria.plain_loops import one_thread as one_thread
from tests.tolaria.rollback.loops import GROWN, NO_TRIALS, Loop, NewLoop, grown, stage
from tests.tolaria.rollback.loops import new_loop as new_loop
from tolaria.rollback.recovery import MAX_UNEXPLAINED

CHAINED: dict[str, Any] = {"schedule": ((1, "conv", "conv"), (4, "head", "low_rank"))}
"""The first seed is grafted after epoch 2 and trusted after 7, the second is grafted after 5."""


@pytest.mark.parametrize("guard_every_step", [False, True])
def test_a_graft_that_began_while_another_was_open_loses_only_its_own_time(
    guard_every_step: bool, new_loop: NewLoop
) -> None:
    """The first has settled by now, so a fault goes back to where the second began, and takes only
    that out; not to where the first did, when the second was not yet planted."""
    loop = grown(new_loop, 7, guard_every_step=guard_every_step, **CHAINED)
    assert loop.esper is not None
    assert stage(loop) is Stage.EVALUATING
    assert loop.parts.executor.table.stage("head/0") is Stage.EVALUATING
    events = listen(loop.esper)
    loop.esper.roll_back("asked to")
    (fault,) = faults(events)
    assert fault.action == "restored from memory; 2 epochs, 8 steps lost; taken out: head/0"
    assert list(attached_seeds(loop.model)) == [SEED]
    assert loop.parts.executor.table.stage("head/0") is Stage.ROLLED_BACK
    assert loop.esper.recovery.num_unexplained == 0


def test_states_before_chained_grafts_come_back_after_a_resume(tmp_path: Path) -> None:
    """Each from the checkpoint of its own boundary."""
    settings = {**GROWN, **CHAINED, "checkpoint": True, "keep_checkpoints": 9}
    ends = []
    for name in ("whole", "parts"):
        loop = Loop(run_dir=tmp_path / name, **settings)
        for _ in range(6):
            loop.epoch()
        if name == "parts":
            assert loop.esper is not None
            loop.esper.close("interrupted")
            loop = Loop(run_dir=tmp_path / name, resume=True, **settings)
            loop.num_done = 24
        assert loop.esper is not None
        with loop.esper:
            held = loop.esper.recovery.before_grafts
            ends.append({seed: state.moment for seed, state in held.items()})
            loop.esper.roll_back("asked to")
            loop.steps(4)
            ends.append(loop.fingerprint()["weights"])
    assert {seed: moment.epoch for seed, moment in ends[0].items()} == {SEED: 2, "head/0": 5}
    assert ends[2:] == ends[:2]


def test_a_resume_does_not_forget_how_often_it_went_wrong(tmp_path: Path) -> None:
    """Epochs that each had a bad loss stop the run at the third, with a resume between them too."""
    settings = {**NO_TRIALS, "policy": "hold", "checkpoint": True, "resume": True}
    for epoch in range(1, MAX_UNEXPLAINED + 1):
        loop = Loop(run_dir=tmp_path / "run", **settings)
        assert loop.esper is not None
        with loop.esper:
            loop.step()
            if epoch == MAX_UNEXPLAINED:
                with pytest.raises(NonFiniteError, match="3 times in a row"):
                    loop.step(poison=math.nan)
            else:
                loop.step(poison=math.nan)
                loop.epoch()


def test_an_older_checkpoint_does_not_bring_back_what_was_taken_out(new_loop: NewLoop) -> None:
    """Taken out since the last boundary, and the memory lost: from the disk comes the seed too, and
    is taken out again."""
    loop = grown(new_loop, 3, checkpoint=True)
    assert loop.esper is not None
    loop.step(poison=math.nan)
    assert stage(loop) is Stage.ROLLED_BACK
    newest = loop.esper.recovery.newest
    assert newest is not None
    newest._side.fill({"model.gone": torch.ones(3)})
    events = listen(loop.esper)
    loop.esper.roll_back("asked to")
    assert "restored from disk" in faults(events)[0].action
    assert f"taken out: {SEED}" in faults(events)[0].action
    assert stage(loop) is Stage.ROLLED_BACK
    assert not attached_seeds(loop.model)
