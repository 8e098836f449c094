"""The response to a run that cannot go on."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from leyline import NonFiniteError
from tests.tolaria.plain_loops import (
    adam,
    attach,
    make_host,
)
from tests.tolaria.plain_loops import one_thread as one_thread
from tests.tolaria.rollback.loops import new_loop as new_loop
from tolaria.rollback.recovery import MAX_UNEXPLAINED


def test_a_loss_that_stops_the_run_is_a_fault_on_record(tmp_path: Path) -> None:
    """The report of a run that failed says why."""
    model = make_host()
    esper = attach(model, adam(model), tmp_path / "run")
    for _ in range(MAX_UNEXPLAINED - 1):
        esper.after_step(math.nan)
    with pytest.raises(NonFiniteError), esper:
        esper.after_step(math.nan)
    report = esper.report()
    assert report["status"] == "failed"
    assert [fault["action"] for fault in report["faults"]][-1] == "the run stops"
