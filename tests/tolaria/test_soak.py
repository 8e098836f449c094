"""A long run: what it holds grows by its history alone, and that by little."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import pytest

from kasmina.slots.slot import attached_seeds
from leyline import Advance, Cull, Decision, Germinate, Stage
from tamiyo import State
from tests.tolaria.plain_loops import (
    SEED,
    SITE,
    TRAIN,
    Scripted,
    adam,
    attach,
    make_host,
    use_policy,
)
from tests.tolaria.plain_loops import one_thread as one_thread

_NUM_WARM = 500
_NUM_BOUNDARIES = 2_000
_CYCLE = 10
_HISTORY_SIZE_BYTES = 8_192
"""What one boundary may leave behind: its events in the view, for the report."""


def _plant_and_cull(state: State) -> Decision:
    """A seed is born, grafted and culled, over and over at one place."""
    epoch = state.packet.epoch
    by_turn = {
        1: Germinate(seed=SEED, site=SITE, blueprint="conv", cause="soak"),
        2: Advance(seed=SEED, to=Stage.GRAFTING, cause="soak"),
        8: Cull(seed=SEED, cause="soak", embargo_epochs=0),
    }
    command = by_turn.get(epoch % _CYCLE)
    commands = () if command is None else (command,)
    return Decision(epoch=epoch, policy="scripted", cause="soak", commands=commands)


def _held() -> dict[str, int]:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "rss": pages * os.sysconf("SC_PAGESIZE"),
        "threads": threading.active_count(),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "modules": sum(type(thing).__name__ == "GraftedSeed" for thing in gc.get_objects()),
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_thousand_boundaries_with_plants_and_culls_leave_nothing_but_their_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a warm-up, 1,500 boundaries with 150 grafts and culls add no thread, no descriptor and
    no seed that nobody holds; memory grows by less than 8 KB a boundary. Every seed was really
    grafted and taken out."""
    use_policy(monkeypatch, Scripted(_plant_and_cull))
    model = make_host()
    optimizer = adam(model)
    settings = {"example": TRAIN[0][0], "loss_fn": None, "data": None, "num_epochs": None}
    num_grafted = 0
    with attach(model, optimizer, tmp_path / "run", **settings) as esper:
        before: dict[str, int] = {}
        for boundary in range(_NUM_BOUNDARIES):
            if boundary == _NUM_WARM:
                before = _held()
            esper.after_step(1.0)
            esper.epoch_boundary({"val_loss": 1.0})
            num_grafted += boundary % _CYCLE == 2 and SEED in attached_seeds(model)
        after = _held()
    assert num_grafted == _NUM_BOUNDARIES // _CYCLE
    grown = after.pop("rss") - before.pop("rss")
    assert after == before
    assert grown < _HISTORY_SIZE_BYTES * (_NUM_BOUNDARIES - _NUM_WARM)
    assert len(optimizer.param_groups) <= 2
