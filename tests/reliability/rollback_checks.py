"""What must hold of a run that has just gone back: what it says, and what it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import pytest

from leyline import NonFiniteError, Stage
from tests.reliability.grown_loops import EMBARGO_EPOCHS, GrownLoop
from tests.reliability.pictures import picture, stages, without
from tests.reliability.rollback_model import Verdict

_DID: Final = re.compile(
    r"restored from (memory|disk).*; (?:(\d+) epochs?, )?(\d+) steps? lost; taken out: (.*)"
)
_ENDS: Final = {Stage.GERMINATED: Stage.CANCELLED, Stage.TRAINING: Stage.CULLED}
"""Where seeds go that were not grafted in the state gone back to; the others are rolled back."""


def check_words(loop: GrownLoop, verdict: Verdict, action: str, *, from_disk: bool) -> None:
    """It names where the state came from, what was lost, and every seed that was taken out."""
    said = _DID.fullmatch(action)
    assert said is not None, action
    run, target = loop.run, verdict.target
    assert said[1] == ("disk" if from_disk else "memory")
    assert int(said[2] or 0) == run.epoch - target.epoch >= 0, (action, run.epoch, target.epoch)
    assert int(said[3]) == run.step - target.step >= 0, (action, run.step, target.step)
    assert said[4] == (", ".join(verdict.out) or "no seed to blame"), (action, verdict.out)


def check_stop(loop: GrownLoop, act: Callable[[], Any], *, in_one_step: bool) -> None:
    """It stops for want of a seed to blame, and names the place."""
    step, epoch = loop.run.step + in_one_step, loop.run.epoch + 1
    place = rf"at epoch {epoch}, step {step} \(batch \d+ of the epoch\): "
    with pytest.raises(NonFiniteError, match=f"{place}3 times in a row without a seed to blame"):
        act()


def check_state(loop: GrownLoop, verdict: Verdict, ramp_steps: int | None) -> None:
    """It is in the state that was to be gone back to, less the seeds that were to be taken out.

    Args:
        ramp_steps: those that a boundary has counted since; None if there was none.
    """
    now, then = picture(loop), verdict.target.picture
    if ramp_steps is not None:
        then = {**then, "rest": {**then["rest"], "ramp_steps": ramp_steps}}
    assert without(now, verdict.out) == without(then, verdict.out)
    assert all(parameter.grad is None for parameter in loop.model.parameters())
    for seed in verdict.out:
        row, was = now["seeds"][seed], stages(then)[seed][0]
        assert row["stage"] == _ENDS.get(was, Stage.ROLLED_BACK)
        assert row["embargo_epochs_left"] == EMBARGO_EPOCHS
        assert seed not in now["grown"]
