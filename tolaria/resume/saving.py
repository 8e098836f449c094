"""Saving: commits a checkpoint through the breaker, so that a full disk is not tried every time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tolaria.boundary.breakers import OPEN
from tolaria.boundary.stage_timer import StageTimer
from tolaria.disk.saves import FAILED_SAVE, SAVE
from tolaria.live_run import LiveRun
from tolaria.resume import growth_state
from tolaria.resume.occasion import group_names, occasion_of


def save(esper: LiveRun, state: Mapping[str, Any] | None, timer: StageTimer) -> None:
    """Commit a checkpoint of this epoch; a failure is a fault, and the last one stays.

    Args:
        state: what to write; None for that of a hand-written loop.
        timer: given the time this takes; the stage's name outlives a fault that no disk would take.
    """
    started_s = esper.clock_s()
    esper.committed_epoch = esper.epoch
    breaker = esper.breakers.checkpoint
    was_open = breaker.state == OPEN
    is_last = esper.num_epochs is not None and esper.epoch >= esper.num_epochs
    is_admitted = breaker.admits()
    if not is_admitted and not is_last:  # there may be room by then, and nothing comes after it
        return
    whole = state or growth_state.loop_state(esper)
    problem = esper.session.commit(esper.step, whole, occasion_of(esper), group_names(esper))
    # A background save tells of the one before it: right after a pause that is old news.
    if is_admitted and not (was_open and esper.config.async_checkpoints):
        breaker.settle(problem)
    if problem is not None:
        esper.fault("checkpoint", problem, "training goes on; the last checkpoint stays")
    name = SAVE if problem is None else FAILED_SAVE
    timer.took_ms[name] = (esper.clock_s() - started_s) * 1e3
