"""What time made of the level of risk is on the disk, and a killed run comes to it again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from tests.tolaria.boundary.test_risk import slow_at
from tests.tolaria.plain_loops import (
    SCHEDULE,
    adam,
    assert_same,
    assert_same_state,
    attach,
    copy_of,
    copy_of_state,
    evaluate,
    make_host,
    run,
    train_epoch,
)
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria import Orchestrator
from tolaria.disk.checkpoint import load
from tolaria.disk.journal import read
from tolaria.resume.replay import FILE_NAME, Replay

SETTINGS: dict[str, Any] = {
    "schedule": SCHEDULE,
    "ramp_epochs": 3,
    "checkpoint": True,
    "async_checkpoints": False,
    "keep_checkpoints": 20,
}
AT_2 = "step-00000008"
"""The checkpoint of the end of epoch 2."""
SLOW = {1, 2, 3, 4}
"""Boundaries that take more than their time: yellow from the third in a row on."""


def _attached(run_dir: Path, **options: Any) -> tuple[nn.Module, Any, Orchestrator]:
    model = make_host()
    optimizer = adam(model)
    return model, optimizer, attach(model, optimizer, run_dir, **{**SETTINGS, **options})


def _end(parts: tuple[nn.Module, Any, Orchestrator]) -> dict[str, Any]:
    """Train to epoch 10; all that the run has become."""
    model, optimizer, esper = parts
    with esper:
        run(model, optimizer, esper, 10 - esper.epoch)
        levels = [d["risk_level"] for d in esper.report()["decisions"]]
        rows = repr([(n, c.tolist()) for n, c in esper.executor.table.columns().items()])
        risk = esper.watch.risk.state_dict()
        alphas = repr(esper.executor.state_dict()["ramps"])
    plain = {"levels": levels, "rows": rows, "risk": risk, "ramps": alphas}
    return {"weights": copy_of(model), "moments": copy_of_state(optimizer), "plain": plain}


def _killed_after_5(parts: tuple[nn.Module, Any, Orchestrator], into: Path) -> None:
    """Train into epoch 6, and copy the run as a kill there would leave it, with no checkpoint
    later than that of epoch 2."""
    model, optimizer, esper = parts
    slow_at(esper, SLOW)
    run(model, optimizer, esper, 5)
    train_epoch(model, optimizer, esper)
    shutil.copytree(esper.run_dir, into)
    esper.epoch_boundary(evaluate(model))
    for path in (into / "checkpoints" / "active").iterdir():
        if path.name > AT_2:
            shutil.rmtree(path)


@pytest.mark.slow
def test_a_run_whose_level_time_has_raised_ends_alike_when_it_was_killed(tmp_path: Path) -> None:
    """Killed in epoch 6, resumed from the end of epoch 2 on a quicker machine: levels, weights,
    moments, ramps and rows are those of the run that went on. Where the journal had lost what time
    did, it is green throughout."""
    parts = _attached(tmp_path / "whole")
    _killed_after_5(parts, tmp_path / "killed")
    shutil.copytree(tmp_path / "killed", tmp_path / "untold")
    undisturbed = _end(parts)
    assert undisturbed["plain"]["levels"] == [0, 0, 0, 1, 1, 1, 0, 0, 0, 0]
    resumed = _end(_attached(tmp_path / "killed", resume=True))
    assert_same(resumed["weights"], undisturbed["weights"])
    assert_same_state(resumed["moments"], undisturbed["moments"])
    assert resumed["plain"] == undisturbed["plain"]
    saved = load(tmp_path / "untold" / "checkpoints" / "active" / AT_2)
    os.truncate(tmp_path / "untold" / "journal.bin", saved["esper"]["journal_position"])
    untold = _end(_attached(tmp_path / "untold", resume=True))
    assert untold["plain"]["levels"] == [0] * 10
    assert_same(untold["weights"], resumed["weights"])


@pytest.mark.slow
def test_what_time_did_to_the_level_is_durable_before_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal is synced within each boundary that time has made yellow, and in no other: not in
    those that are still yellow after it."""
    names: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        names.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    model, optimizer, esper = _attached(tmp_path / "run", checkpoint=False)
    synced = []
    with esper:
        slow_at(esper, SLOW)
        for _ in range(7):
            names.clear()
            run(model, optimizer, esper, 1)
            synced.append("journal.bin" in names)
        told = Replay.of(read(tmp_path / "run" / "journal.bin"))
    assert synced == [False, False, False, True, True, False, False]
    assert told.risk == {4: 1, 5: 1}


def test_levels_of_earlier_resumes_are_kept_with_those_of_later_ones(tmp_path: Path) -> None:
    """They go to the file and back, and a later part of the run adds to them."""
    earlier, later = Replay(risk={4: 1, 5: 2}, last_epoch=5), Replay(risk={7: 1}, last_epoch=8)
    earlier.merged(later).save(tmp_path / FILE_NAME)
    assert Replay.load(tmp_path / FILE_NAME) == Replay(risk={4: 1, 5: 2, 7: 1}, last_epoch=8)
